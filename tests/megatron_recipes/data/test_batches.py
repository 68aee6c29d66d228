import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpora import MASK, PAD, corpus_in_memory, special_tokens, telling_documents

from megatron_recipes.data.batches import FILLER, MlmDataset, training_batches, validation_batches
from megatron_recipes.data.masking import IGNORE_INDEX

GLOBAL_BATCH = 8


def dataset(lengths=tuple(range(3, 40)), sequence_length=32, seed=1234, shuffle=True, probability=0.3):
    documents, vocab_size = telling_documents(lengths)
    corpus, special = corpus_in_memory(documents, vocab_size), special_tokens(vocab_size)
    return MlmDataset(corpus, special, sequence_length, probability, seed, shuffle)


def global_batch(data, step, micro_batch_size, ranks, global_batch_size=GLOBAL_BATCH):
    """Rows of the step over all ranks, sorted: what the optimizer step sees, whatever the layout."""
    rows = []
    for rank in range(ranks):
        for batch in training_batches(data, step, global_batch_size, micro_batch_size, rank, ranks):
            rows += list(zip(batch.input_ids.tolist(), batch.labels.tolist(), strict=True))
    return sorted(rows)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("micro_batch_size", [1, 2])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 11])
def test_every_layout_sees_the_same_global_batch(ranks, micro_batch_size, step):
    reference = global_batch(dataset(), step, 8, 1)
    assert len(reference) == GLOBAL_BATCH
    assert global_batch(dataset(), step, micro_batch_size, ranks) == reference


def test_ranks_take_turns():
    """Micro batch m of rank r holds the samples step x 8 + (m x 2 + r) x 2 and the next."""
    data = dataset()
    for rank in (0, 1):
        for m, batch in enumerate(training_batches(data, 3, 8, 2, rank, 2)):
            first = 24 + (m * 2 + rank) * 2
            expected = data.micro_batch(np.array([first, first + 1]))
            assert np.array_equal(batch.input_ids, expected.input_ids)
            assert np.array_equal(batch.labels, expected.labels)


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 60))
def test_resuming_at_any_step_equals_not_stopping(first):
    uninterrupted, resumed = dataset(), dataset()
    for step in range(max(0, first - 3), first):
        list(training_batches(uninterrupted, step, 4, 2, 0, 1))
    for step in range(first, first + 3):
        both = zip(training_batches(uninterrupted, step, 4, 2, 0, 1), training_batches(resumed, step, 4, 2, 0, 1), strict=True)
        for one, other in both:
            assert np.array_equal(one.input_ids, other.input_ids)
            assert np.array_equal(one.labels, other.labels)
            assert np.array_equal(one.cu_seqlens, other.cu_seqlens)


def test_a_batch_may_straddle_epochs():
    data = dataset()
    edge = data.windows
    batch = data.micro_batch(np.arange(edge - 2, edge + 2))
    for row, sample in enumerate(range(edge - 2, edge + 2)):
        alone = data.micro_batch(np.array([sample]))
        assert np.array_equal(alone.input_ids[0], batch.input_ids[row])
        assert np.array_equal(alone.labels[0], batch.labels[row])


def restored(batch):
    """The tokens before masking."""
    return np.where(batch.labels != IGNORE_INDEX, batch.labels, batch.input_ids)


def test_epochs_differ_in_order_and_masks():
    data = dataset()
    first, second = (data.micro_batch(np.arange(data.windows) + epoch * data.windows) for epoch in (0, 1))
    assert not np.array_equal(restored(first), restored(second))
    both = np.intersect1d(restored(first), restored(second))
    assert len(both) > 0.9 * len(np.unique(restored(first)))

    def chosen(batch):
        return set(batch.labels[batch.labels != IGNORE_INDEX].tolist())

    assert len(chosen(first) ^ chosen(second)) > 0.3 * len(chosen(first))


@pytest.mark.parametrize("shuffle", [True, False])
def test_cu_seqlens(shuffle):
    data = dataset(shuffle=shuffle)
    batch = data.micro_batch(np.arange(data.windows))
    rows, columns = batch.input_ids.shape
    assert batch.cu_seqlens.dtype == np.int32
    assert (batch.cu_seqlens[0], batch.cu_seqlens[-1]) == (0, rows * columns)
    lengths = np.diff(batch.cu_seqlens)
    assert (lengths > 0).all() and lengths.max() <= columns
    assert set(range(0, rows * columns + 1, columns)) <= set(batch.cu_seqlens.tolist())
    tokens = restored(batch).ravel()
    for begin, end in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True):
        inside = tokens[begin:end]
        assert (np.diff(inside[inside >= 5]) == 1).all()  # one document's ids rise by one
        assert len(set((inside == PAD).tolist())) == 1  # padding is a segment of its own


def test_shapes_and_types():
    batch = dataset().micro_batch(np.array([5, 6, 7]))
    assert batch.input_ids.shape == batch.labels.shape == (3, 32)
    assert batch.input_ids.dtype == batch.labels.dtype == np.int64
    assert (batch.input_ids == MASK).any()


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
@pytest.mark.parametrize("sequences", [5, 1000])
def test_validation_is_the_same_on_every_layout(ranks, micro_batch_size, sequences):
    data = dataset(shuffle=False, probability=0.15)
    count = min(sequences, data.windows)
    expected = data.micro_batch(np.arange(count))
    found, batches = [], set()
    for rank in range(ranks):
        share = list(validation_batches(data, sequences, micro_batch_size, rank, ranks))
        batches.add(len(share))
        assert all(batch.input_ids.shape == (micro_batch_size, 32) for batch in share)
        for batch in share:
            found += list(zip(batch.input_ids.tolist(), batch.labels.tolist(), strict=True))
    assert len(batches) == 1
    fillers = [row for row in found if set(row[0]) == {PAD}]
    assert all(set(labels) == {IGNORE_INDEX} for _, labels in fillers)
    real = sorted(row for row in found if row not in fillers)
    assert real == sorted(zip(expected.input_ids.tolist(), expected.labels.tolist(), strict=True))


def test_validation_repeats_itself():
    data = dataset(shuffle=False)
    first, second = list(validation_batches(data, 9, 4, 0, 1)), list(validation_batches(data, 9, 4, 0, 1))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.labels, other.labels)


def test_validation_never_masks_padding():
    data = dataset(shuffle=False, probability=0.9)
    batch = data.micro_batch(np.arange(data.windows))
    assert (restored(batch) == PAD).any()
    assert (batch.labels[restored(batch) == PAD] == IGNORE_INDEX).all()


def test_filler_rows():
    batch = dataset().micro_batch(np.array([FILLER, 0, FILLER]))
    assert (batch.input_ids[[0, 2]] == PAD).all() and (batch.labels[[0, 2]] == IGNORE_INDEX).all()
    assert {0, 32, 64, 96} <= set(batch.cu_seqlens.tolist())
    assert (batch.labels[1] != IGNORE_INDEX).any()
