import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_curricula import corpus, rows
from test_cursor import stream_of

from megatron_recipes.data.causal import causal_batch, split_for_context, validation_batches
from megatron_recipes.data.cursor import SourceStream
from megatron_recipes.data.masking import IGNORE_INDEX

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
FILLER = 99_999_999


def batch_of(source, count, seq_len, attention):
    stream = SourceStream(source, seed=3)
    return causal_batch([stream.row(n * seq_len, seq_len) for n in range(count)], seq_len, attention, FILLER)


@settings(max_examples=150)
@given(lengths=LENGTHS, count=st.integers(1, 4), seq_len=st.integers(2, 12))
def test_inside_documents(lengths, count, seq_len):
    source = corpus("web", lengths)
    expected = stream_of(source, 3, count * seq_len + 1)
    batch = batch_of(source, count, seq_len, "document")
    assert batch.input_ids.shape == batch.labels.shape == batch.positions.shape == (count, seq_len)
    assert batch.input_ids.ravel().tolist() == [token for token, _ in expected[:-1]]
    labels = [after[0] if after[1] == here[1] else IGNORE_INDEX for here, after in itertools.pairwise(expected)]
    assert batch.labels.ravel().tolist() == labels
    starts = [t for t in range(count * seq_len) if t % seq_len == 0 or expected[t][1] != expected[t - 1][1]]
    assert batch.cu_seqlens.dtype == np.int32
    assert batch.cu_seqlens.tolist() == [*starts, count * seq_len]
    positions = [t - max(s for s in starts if s <= t) for t in range(count * seq_len)]
    assert batch.positions.ravel().tolist() == positions


@settings(max_examples=80)
@given(lengths=LENGTHS, count=st.integers(1, 4), seq_len=st.integers(2, 12))
def test_across_documents(lengths, count, seq_len):
    source = corpus("web", lengths)
    expected = [token for token, _ in stream_of(source, 3, count * seq_len + 1)]
    batch = batch_of(source, count, seq_len, "across")
    assert batch.input_ids.ravel().tolist() == expected[:-1]
    assert batch.labels.ravel().tolist() == expected[1:]
    assert batch.cu_seqlens is None
    assert batch.positions.tolist() == [list(range(seq_len))] * count


@settings(max_examples=80)
@given(lengths=LENGTHS.filter(lambda x: sum(x) >= 2), seq_len=st.integers(2, 12))
def test_every_token_but_a_documents_first_is_predicted_once(lengths, seq_len):
    source = corpus("web", lengths)
    total = sum(lengths)
    batch = batch_of(source, -(-total // seq_len), seq_len, "document")
    firsts = {int(start) for start, length in zip(source.document_starts, lengths, strict=False) if length}
    predicted = batch.labels.ravel()[:total]
    assert sorted(predicted[predicted != IGNORE_INDEX].tolist()) == sorted(set(range(total)) - firsts)


@settings(max_examples=100)
@given(
    lengths=LENGTHS,
    seq_len=st.integers(2, 12),
    micro=st.integers(1, 3),
    ranks=st.integers(1, 3),
    attention=st.sampled_from(["document", "across"]),
)
def test_validation_covers_the_corpus_in_its_order(lengths, seq_len, micro, ranks, attention):
    source = corpus("web", lengths)
    total = sum(lengths)
    shares = [list(validation_batches(source, seq_len, attention, 10**6, micro, rank, ranks)) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert all(batch.input_ids.shape == (micro, seq_len) for share in shares for batch in share)
    dealt = [row for turn in zip(*shares, strict=True) for batch in turn for row in rows([batch])]
    ids = [token for row in dealt for token in row[0]]
    labels = [label for row in dealt for label in row[1]]
    assert ids[:total] == list(range(total))
    eod = source.manifest.tokenizer.eod_id
    assert set(ids[total:]) <= {eod} and set(labels[total:]) <= {IGNORE_INDEX}
    ends = {int(end) - 1 for end in source.document_starts[1:]} if attention == "document" else {total - 1}
    assert labels[:total] == [IGNORE_INDEX if t in ends else t + 1 for t in range(total)]


def test_validation_fillers_are_segments_of_their_own():
    (batch,) = validation_batches(corpus("web", [3, 2]), 4, "document", 10, 3, 0, 1)
    assert batch.cu_seqlens.tolist() == [0, 3, 4, 5, 8, 12]
    assert batch.positions.tolist() == [[0, 1, 2, 0], [0, 0, 1, 2], [0, 1, 2, 3]]


def test_validation_stops_at_the_sequences_asked_for():
    batches = list(validation_batches(corpus("web", [100]), 10, "document", 3, 2, 0, 1))
    assert [batch.input_ids[:, 0].tolist() for batch in batches] == [[0, 10], [20, 3]]
    assert batches[1].labels[0].tolist() == list(range(21, 31))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_context_shares_are_a_zigzag(size):
    whole = batch_of(corpus("web", [7, 30, 11]), 2, 16, "document").input_ids
    shares = [split_for_context(whole, rank, size) for rank in range(size)]
    chunk = 16 // (2 * size)
    for rank, share in enumerate(shares):
        assert share.shape == (2, 16 // size)
        assert np.array_equal(share[:, :chunk], whole[:, rank * chunk : (rank + 1) * chunk])
        assert np.array_equal(share[:, chunk:], whole[:, 16 - (rank + 1) * chunk : 16 - rank * chunk])
    assert np.array_equal(np.sort(np.concatenate(shares, axis=1)), np.sort(whole))
    places = [split_for_context(np.arange(16)[None], rank, size) for rank in range(size)]
    assert len({int((place + 1).sum()) for place in places}) == 1  # queries x keys under causal attention
