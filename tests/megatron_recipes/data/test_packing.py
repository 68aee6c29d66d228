import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpora import CLS, PAD, SEP, corpus_in_memory, special_tokens, telling_documents

from mecellem.errors import UserError
from megatron_recipes.data.packing import PackedCorpus

LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=12)


def pack(lengths, sequence_length, seed=1, shuffle=True):
    documents, vocab_size = telling_documents(lengths)
    corpus = corpus_in_memory(documents, vocab_size)
    return documents, PackedCorpus(corpus, special_tokens(vocab_size), sequence_length, seed, shuffle)


def epoch_of(packed, epoch):
    """All windows of an epoch and where segments begin in them."""
    return packed.windows_of(epoch, np.arange(packed.windows))


def segments(windows, boundaries):
    """The tokens of each segment, as lists."""
    flat = windows.ravel()
    return [part.tolist() for part in np.split(flat, np.flatnonzero(boundaries.ravel())[1:])]


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, sequence_length=st.integers(1, 40), seed=st.integers(0, 2**63), epoch=st.integers(0, 5))
def test_every_token_once_an_epoch_up_to_the_remainder(lengths, sequence_length, seed, epoch):
    total = sum(lengths) + 2 * len(lengths)
    if total < sequence_length:
        with pytest.raises(UserError, match=r"--data\.sequence-length"):
            pack(lengths, sequence_length, seed)
        return
    _, packed = pack(lengths, sequence_length, seed)
    assert packed.windows == total // sequence_length
    windows, _ = epoch_of(packed, epoch)
    counts = np.bincount(windows.ravel(), minlength=5 + sum(lengths))
    assert windows.size == packed.windows * sequence_length
    assert counts[5:].max(initial=0) <= 1
    assert counts[PAD] == 0
    assert max(counts[CLS], counts[SEP]) <= len(lengths)
    assert total - windows.size < sequence_length
    if total % sequence_length == 0:
        assert (counts[5:] == 1).all() and counts[CLS] == counts[SEP] == len(lengths)


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, sequence_length=st.integers(1, 40), shuffle=st.booleans())
def test_segments_are_pieces_of_one_document(lengths, sequence_length, shuffle):
    if shuffle and sum(lengths) + 2 * len(lengths) < sequence_length:
        return
    documents, packed = pack(lengths, sequence_length, shuffle=shuffle)
    whole = [[CLS, *document] for document in documents]
    owner = {token: (d, i) for d, document in enumerate(whole) for i, token in enumerate(document) if token >= 5}
    windows, boundaries = epoch_of(packed, epoch=0)
    assert boundaries[:, 0].all()
    for segment in segments(windows, boundaries):
        known = [(place, token) for place, token in enumerate(segment) if token >= 5]
        if not known:  # an empty document or the edge of one
            assert segment in ([CLS], [SEP], [CLS, SEP]) or set(segment) == {PAD}
            continue
        place, token = known[0]
        document, offset = owner[token]
        assert segment == whole[document][offset - place : offset - place + len(segment)]


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, sequence_length=st.integers(1, 40))
def test_validation_sees_all_in_order_and_pads_the_last_window(lengths, sequence_length):
    documents, packed = pack(lengths, sequence_length, shuffle=False)
    windows, boundaries = epoch_of(packed, epoch=0)
    expected = [token for document in documents for token in (CLS, *document)]
    flat = windows.ravel().tolist()
    assert flat[: len(expected)] == expected
    padding = flat[len(expected) :]
    assert set(padding) <= {PAD} and len(padding) < sequence_length
    starts = np.cumsum([0] + [len(document) + 1 for document in documents])[:-1]
    ends = [len(expected)] if padding else []
    wanted = sorted({*range(0, len(flat), sequence_length), *starts.tolist(), *ends})
    assert np.flatnonzero(boundaries.ravel()).tolist() == wanted


def test_a_document_goes_on_in_the_next_window():
    documents, packed = pack([10], 4, shuffle=False)
    windows, boundaries = epoch_of(packed, epoch=0)
    assert windows.tolist() == [[CLS, *documents[0][:3]], documents[0][3:7], documents[0][7:]]
    assert boundaries.sum() == 3


def test_batching_does_not_change_a_window():
    _, packed = pack([7, 0, 12, 3, 25, 1], 6)
    together, marks = packed.windows_of(3, np.array([4, 0, 2]))
    for row, index in enumerate((4, 0, 2)):
        alone, mark = packed.windows_of(3, np.array([index]))
        assert np.array_equal(alone[0], together[row]) and np.array_equal(mark[0], marks[row])


def test_order_depends_on_seed_and_epoch_alone():
    lengths = list(range(40))
    _, packed = pack(lengths, 16, seed=5)
    first, _ = epoch_of(packed, 0)
    second, _ = epoch_of(packed, 1)
    again, _ = epoch_of(packed, 0)
    other, _ = epoch_of(pack(lengths, 16, seed=6)[1], 0)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert {tuple(row) for row in first.tolist()} != {tuple(row) for row in second.tolist()}  # documents moved too


def test_windows_are_shuffled_too():
    """One long document: without shuffled windows its tokens would come in order."""
    _, packed = pack([1000], 10)
    starts = epoch_of(packed, 0)[0][:, 0]
    assert (np.diff(starts) < 0).sum() > 20


def test_the_remainder_differs_between_epochs():
    lengths = [9] * 50
    _, packed = pack(lengths, 100)
    left_out = {tuple(np.setdiff1d(np.arange(5, 5 + sum(lengths)), epoch_of(packed, epoch)[0])) for epoch in range(4)}
    assert len(left_out) == 4


def test_corpus_that_does_not_end_documents_with_sep():
    documents, vocab_size = telling_documents([5])
    corpus = corpus_in_memory(documents, vocab_size)
    manifest = corpus.manifest.model_copy(update={"tokenizer": corpus.manifest.tokenizer.model_copy(update={"eod_id": PAD})})
    broken = type(corpus)(corpus.prefix, corpus.tokens, corpus.document_starts, manifest)
    with pytest.raises(UserError, match=r"end with id 0 but \[SEP\] is 3"):
        PackedCorpus(broken, special_tokens(vocab_size), 4, 1, True)
