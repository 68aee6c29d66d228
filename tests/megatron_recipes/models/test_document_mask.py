"""Documents, padding and windows as attention masks, against the definition written out with loops."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_recipes.engine import runtime

runtime.install()

from megatron_recipes.models.document_mask import (  # noqa: E402  (needs the runtime)
    cu_seqlens_from_segments,
    dense_mask,
    segments_from_cu_seqlens,
    stream_mask,
)

CPU = torch.device("cpu")


@st.composite
def packed(draw) -> tuple[int, int, list[int]]:
    """Rows, length and document boundaries; every row starts a document."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    inside = draw(st.sets(st.integers(1, rows * length - 1))) if rows * length > 1 else set()
    return rows, length, sorted(inside | set(range(0, rows * length + 1, length)))


@settings(max_examples=60)
@given(case=packed(), window=st.one_of(st.none(), st.integers(0, 14)))
def test_packed_rows(case, window):
    rows, length, boundaries = case
    mask = dense_mask(rows, length, cu_seqlens=torch.tensor(boundaries, dtype=torch.int32)).allowed(window, CPU)
    document = {t: d for d, (start, end) in enumerate(itertools.pairwise(boundaries)) for t in range(start, end)}
    for row, i, j in itertools.product(range(rows), range(length), range(length)):
        expected = document[row * length + i] == document[row * length + j] and (window is None or abs(i - j) <= window)
        assert bool(mask[row, 0, i, j]) == expected


@settings(max_examples=60)
@given(case=packed())
def test_positions_start_anew_in_each_document(case):
    rows, length, boundaries = case
    mask = dense_mask(rows, length, cu_seqlens=torch.tensor(boundaries, dtype=torch.int32))
    expected = [position for start, end in itertools.pairwise(boundaries) for position in range(end - start)]
    assert mask.positions.flatten().tolist() == expected


@settings(max_examples=60)
@given(case=packed())
def test_boundaries_and_segments_are_each_others_inverse(case):
    rows, length, boundaries = case
    given = torch.tensor(boundaries, dtype=torch.int32)
    segments = segments_from_cu_seqlens(given, rows, length)
    assert segments.shape == (rows, length)
    assert torch.equal(cu_seqlens_from_segments(segments), given)


def test_padding_is_a_segment_of_its_own():
    attention = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    mask = dense_mask(2, 4, attention_mask=attention).allowed(None, CPU)[:, 0]
    assert mask[0].tolist() == [[True, True, False, False]] * 2 + [[False, False, True, True]] * 2
    assert mask[1].all()
    assert mask.any(-1).all()  # a row of only masked keys would be NaN
    assert dense_mask(2, 4, attention_mask=attention).positions is None  # padding does not move a token


def test_whole_documents_need_no_mask():
    assert dense_mask(2, 5).allowed(None, CPU) is None
    assert dense_mask(2, 5, attention_mask=torch.ones(2, 5, dtype=torch.int64)).allowed(None, CPU) is None
    assert dense_mask(2, 5).allowed(4, CPU) is None  # the window is as wide as the text
    assert dense_mask(2, 5).allowed(3, CPU).shape == (5, 5)


def test_masks_are_built_once_per_window():
    mask = dense_mask(1, 6, cu_seqlens=torch.tensor([0, 2, 6], dtype=torch.int32))
    assert mask.allowed(2, CPU) is mask.allowed(2, CPU)
    assert not torch.equal(mask.allowed(1, CPU), mask.allowed(2, CPU))


@pytest.mark.parametrize(
    ("arguments", "boundaries", "longest"),
    [
        ({}, [0, 6, 12], 6),
        ({"cu_seqlens": torch.tensor([0, 1, 6, 8, 12], dtype=torch.int32)}, [0, 1, 6, 8, 12], 5),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])}, [0, 4, 6, 12], 6),
        ({"attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])}, [0, 2, 6, 7, 12], 5),
    ],
)
def test_the_stream_for_variable_length_kernels(arguments, boundaries, longest):
    mask = stream_mask(2, 6, CPU, **arguments)
    assert mask.qkv_format == "thd" and mask.segments is None
    assert mask.cu_seqlens_q.tolist() == mask.cu_seqlens_kv.tolist() == boundaries
    assert mask.cu_seqlens_q.dtype == torch.int32
    assert mask.max_seqlen_q == mask.max_seqlen_kv == longest


def test_packed_and_padded_at_once_is_our_bug():
    with pytest.raises(AssertionError):
        dense_mask(1, 2, torch.tensor([0, 2]), torch.ones(1, 2))
