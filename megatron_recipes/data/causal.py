"""Batches for next-token prediction: rows of whole streams, each token the label of the one before it.

Attention "document": a document sees itself only (`cu_seqlens`), its positions count from 0, and the label that would
lead from a document's end into the next document is ignored. A document that a row cuts goes on in its source's next row,
as a document of its own, and its first token there is still the last label of the row before: every token but a document's
first is predicted exactly once. Attention "across": a row is one sequence, and every token is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megatron_recipes.data.corpus import Int64Array, TokenCorpus
from megatron_recipes.data.curriculum_stage import Attention
from megatron_recipes.data.masking import IGNORE_INDEX


@dataclass(frozen=True, slots=True)
class CausalBatch:
    """One micro batch of b sequences of s tokens; `labels[:, t]` is the token after `input_ids[:, t]`."""

    input_ids: Int64Array  # [b, s]
    labels: Int64Array  # [b, s]; -100 where there is no loss
    positions: Int64Array  # [b, s]; from 0 in each segment of `cu_seqlens`, or in each row
    cu_seqlens: np.ndarray[Any, np.dtype[np.int32]] | None  # [segments + 1] over b x s tokens; None: across the whole row


@dataclass(frozen=True, slots=True)
class Row:
    """Where the tokens of one sequence lie: pieces of documents in a `.bin`. Nothing is read yet."""

    tokens: np.ndarray[Any, Any]  # the whole .bin
    begins: Int64Array  # [pieces]
    ends: Int64Array  # [pieces]
    following: int | None  # the token after the last; None where the corpus ends
    continues: bool  # whether that token belongs to the last piece's document


def causal_batch(rows: Sequence[Row], seq_len: int, attention: Attention, filler: int) -> CausalBatch:
    """Read `rows`. One shorter than `seq_len` is filled up with the token `filler`, without labels, apart from the rest."""
    input_ids = np.full((len(rows), seq_len), filler, dtype=np.int64)
    labels = np.full((len(rows), seq_len), IGNORE_INDEX, dtype=np.int64)
    starts = np.zeros((len(rows), seq_len), dtype=np.bool_)
    starts[:, 0] = True
    for ids, targets, begins, row in zip(input_ids, labels, starts, rows, strict=True):
        pieces = [row.tokens[a:b] for a, b in zip(row.begins.tolist(), row.ends.tolist(), strict=True)]
        edges = np.cumsum(row.ends - row.begins)
        size = int(edges[-1]) if len(edges) else 0
        if pieces:
            np.concatenate(pieces, out=ids[:size], casting="same_kind")
            targets[: size - 1] = ids[1:size]
            if row.following is not None and (attention == "across" or row.continues):
                targets[size - 1] = row.tokens[row.following]
            if attention == "document":
                targets[edges[:-1] - 1] = IGNORE_INDEX
        begins[edges[edges < seq_len]] = True
    if attention == "across":
        return CausalBatch(input_ids, labels, np.tile(np.arange(seq_len), (len(rows), 1)), None)
    places = np.flatnonzero(starts)
    cu_seqlens = np.append(places, starts.size)
    positions = np.arange(starts.size) - np.repeat(places, np.diff(cu_seqlens))
    return CausalBatch(input_ids, labels, positions.reshape(starts.shape), cu_seqlens.astype(np.int32))


def _row_in_order(corpus: TokenCorpus, tokens: np.ndarray[Any, Any], begin: int, length: int) -> Row:
    """The corpus's tokens `begin` ... `begin + length - 1` as they lie; fewer, or none, at its end."""
    starts = corpus.document_starts
    total = int(starts[-1])
    begin = min(begin, total)
    end = min(begin + length, total)
    first, last = np.searchsorted(starts, begin, side="right") - 1, np.searchsorted(starts, end, side="left")
    edges = np.unique(np.clip(starts[first : last + 1], begin, end))
    following = end if end < total else None
    return Row(tokens, edges[:-1], edges[1:], following, continues=following is not None and bool(starts[last] > end))


def validation_batches(
    corpus: TokenCorpus,
    seq_len: int,
    attention: Attention,
    sequences: int,
    rows_per_micro_batch: int,
    data_parallel_rank: int,
    data_parallel_size: int,
) -> Iterator[CausalBatch]:
    """One data-parallel rank's share of the corpus's first `sequences` sequences (all where it has fewer), in its order.

    Every rank gets the same number of micro batches of the same size; where the sequences do not divide evenly, and at
    the corpus's end, the rest is filled with end-of-document tokens without labels.
    """
    tokens = np.asarray(corpus.tokens)
    count = min(sequences, -(-len(tokens) // seq_len))
    for offset in range(0, count, rows_per_micro_batch * data_parallel_size):
        first = offset + data_parallel_rank * rows_per_micro_batch
        numbers = [number if number < count else -1 for number in range(first, first + rows_per_micro_batch)]
        begins = [number * seq_len if number >= 0 else len(tokens) for number in numbers]
        rows = [_row_in_order(corpus, tokens, begin, seq_len) for begin in begins]
        yield causal_batch(rows, seq_len, attention, filler=corpus.manifest.tokenizer.eod_id)


def context_chunks(rank: int, size: int) -> tuple[int, int]:
    """The two of a row's `2 x size` equal parts that a context-parallel rank holds: one cheap, one dear (zig-zag)."""
    return rank, 2 * size - 1 - rank


def split_for_context(array: np.ndarray[Any, Any], context_rank: int, context_size: int) -> np.ndarray[Any, Any]:
    """The share `[b, s / context_size]` of one context-parallel rank in `array` [b, s].

    A row is cut into 2 x `context_size` chunks, of which a rank takes `context_chunks`: under causal attention every rank
    then has the same work. `s` must divide by 2 x `context_size`.
    """
    length = array.shape[1]
    assert length % (2 * context_size) == 0 and 0 <= context_rank < context_size, (length, context_rank, context_size)
    chunks = array.reshape(len(array), 2 * context_size, -1)
    return chunks[:, list(context_chunks(context_rank, context_size))].reshape(len(array), -1)
