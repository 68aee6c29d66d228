"""What attends to what, against a dense mask made the obvious way; over context-parallel shares as well."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_recipes.data.causal import split_for_context
from megatron_recipes.engine import runtime

runtime.install()

from megatron_recipes.models.causal_attention import (  # noqa: E402  (needs the runtime)
    causal_documents,
    document_lengths,
    document_positions,
)


@st.composite
def packings(draw: st.DrawFn) -> tuple[int, int, list[int] | None, int]:
    """Rows, their length, document boundaries (None: every row is one document), context-parallel ranks."""
    size = draw(st.sampled_from([1, 2, 3, 4]))
    rows, length = draw(st.integers(1, 3)), 2 * size * draw(st.integers(1, 6))
    inner = draw(st.none() | st.sets(st.integers(1, rows * length - 1) if rows * length > 1 else st.nothing()))
    return rows, length, None if inner is None else sorted({0, rows * length} | inner), size


def dense(rows: int, length: int, boundaries: list[int] | None) -> torch.Tensor:
    """`[b * s, b * s]`: whether a token sees another."""
    position = torch.arange(rows * length)
    starts = torch.tensor(sorted(set(range(0, rows * length, length)) | set((boundaries or [])[:-1])))
    document = torch.searchsorted(starts, position, right=True)
    return (document[:, None] == document[None]) & (position[:, None] >= position[None])


@settings(max_examples=200, deadline=None)
@given(packings())
def test_spans_are_the_dense_mask(packing: tuple[int, int, list[int] | None, int]):
    rows, length, boundaries, size = packing
    cu_seqlens = None if boundaries is None else torch.tensor(boundaries, dtype=torch.int32)
    expected = dense(rows, length, boundaries)
    lengths = document_lengths(rows, length, cu_seqlens)
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    number = torch.arange(rows * length).view(rows, length)
    for rank in range(size):
        documents = causal_documents(rows, length, cu_seqlens, rank, size)
        own = torch.from_numpy(split_for_context(number.numpy(), rank, size)).flatten()
        if documents.spans is None:  # whole documents of one length, each causal by itself
            assert size == 1 and len(set(lengths)) == 1
            one = torch.ones(lengths[0], lengths[0], dtype=torch.bool).tril()
            assert torch.equal(torch.block_diag(*[one] * len(lengths)).bool(), expected)
            continue
        found = torch.zeros(len(own), rows * length, dtype=torch.bool)
        done = 0
        for span in documents.spans:
            mask = documents.mask(span, torch.device("cpu"))
            mask = torch.ones(span.queries, span.seen, dtype=torch.bool).tril() if mask is None else mask
            found[done : done + span.queries, starts[span.document] : starts[span.document] + span.seen] = mask
            done += span.queries
        assert done == len(own) and torch.equal(found, expected[own])


@settings(max_examples=100, deadline=None)
@given(packings())
def test_positions_start_anew_in_each_document(packing: tuple[int, int, list[int] | None, int]):
    rows, length, boundaries, _ = packing
    cu_seqlens = None if boundaries is None else torch.tensor(boundaries, dtype=torch.int32)
    found = document_positions(document_lengths(rows, length, cu_seqlens), torch.device("cpu"))
    assert torch.equal(found, dense(rows, length, boundaries).sum(1) - 1)


def test_no_mask_is_built_where_each_document_is_whole():
    documents = causal_documents(2, 32, torch.tensor([0, 3, 20, 32, 64], dtype=torch.int32))
    assert documents.spans is not None and len(documents.spans) == 4
    assert all(documents.mask(span, torch.device("cpu")) is None for span in documents.spans)
    assert causal_documents(4, 32).spans is None
