"""Rows of a new vocabulary as weighted sums of a teacher's rows: one weight a piece, computed in fp32, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch

from conversion.clone.alignment import Alignment, Kind
from mecellem.errors import UserError

Tensor = torch.Tensor
Method = Literal["mean", "weighted", "first", "regression", "omp", "random"]
METHODS: tuple[Method, ...] = get_args(Method)
BLOCK_VALUES = 8 << 20  # of gathered rows at a time: 32 MiB in fp32


@dataclass(frozen=True, slots=True)
class Combination:
    """Row i is the sum of `weights[j] * teacher[rows[j]]` for j from `offsets[i]` to `offsets[i + 1]`.

    One row with the weight 1 is copied bit by bit, none means the fallback row. `offsets`: int64 `[n + 1]`. `rows`: int64.
    `weights`: fp32. `made`: bool `[n]`, rows that a `Maker` makes of these pieces instead.
    """

    offsets: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    made: np.ndarray

    @property
    def size(self) -> int:
        """Rows of the new vocabulary."""
        return len(self.offsets) - 1


class Maker(Protocol):
    """Makes rows of one tensor of pieces in another way than by a weighted sum."""

    def __call__(self, pieces: Tensor, counts: Tensor) -> Tensor:
        """fp32 rows `[n, ...]` of pieces `[sum(counts), ...]` that lie after one another; `counts` `[n]`."""
        ...

    def facts(self) -> dict[str, object]:
        """What it knows about itself, for the record."""
        ...


def combine(alignment: Alignment, method: Method) -> Combination:
    """The pieces of every entry with their weights, for every method that needs nothing else.

    `mean`: the same for each piece. `weighted`: n, n - 1, ..., 1 for n pieces, over their sum, as in transformer-cloner.
    `first`: the first piece alone. `random`, `regression`: a maker makes the composed entries.
    """
    lengths = alignment.lengths
    each = np.repeat(lengths, lengths)
    place = np.arange(len(alignment.pieces)) - np.repeat(alignment.offsets[:-1], lengths)
    made = np.zeros(len(lengths), dtype=bool)
    if method == "first":
        kept = place == 0
        offsets = np.concatenate([[0], np.cumsum(lengths > 0)])
        return Combination(offsets, alignment.pieces[kept], np.ones(int(kept.sum()), dtype=np.float32), made)
    weights = 2.0 * (each - place) / (each * (each + 1.0)) if method == "weighted" else 1.0 / each
    if method in ("random", "regression"):
        made = alignment.kinds == Kind.COMPOSED
        if method == "regression":  # a piece alone spells the whole text: nothing is to be guessed
            made &= lengths > 1
    return Combination(alignment.offsets, alignment.pieces, weights.astype(np.float32), made)


def replaced(alignment: Alignment, entries: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> Combination:
    """The mean, but for `entries` `[m]` sums of the teacher's `rows` with `weights`, both `[m, k]`."""
    start = combine(alignment, "mean")
    lengths = alignment.lengths.copy()
    lengths[entries] = rows.shape[1]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    new_rows, new_weights = np.empty(offsets[-1], dtype=np.int64), np.empty(offsets[-1], dtype=np.float32)
    others = np.ones(len(lengths), dtype=bool)
    others[entries] = False
    new, old = np.repeat(others, lengths), np.repeat(others, alignment.lengths)
    new_rows[new], new_weights[new] = start.rows[old], start.weights[old]
    places = (offsets[entries][:, None] + np.arange(rows.shape[1])).ravel()
    new_rows[places], new_weights[places] = rows.ravel(), weights.ravel()
    return Combination(offsets, new_rows, new_weights, start.made)


def moments(table: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the first `entries` rows, by channel; sums in fp64, results in fp32."""
    total = squares = torch.zeros(table.shape[1:], dtype=torch.float64)
    for block in table[:entries].split(max(1, BLOCK_VALUES // max(1, table[0].numel()))):
        values = block.double()
        total, squares = total + values.sum(dim=0), squares + values.square().sum(dim=0)
    mean = total / entries
    return mean.float(), (squares / entries - mean.square()).clamp(min=0).sqrt().float()


class RandomRows:
    """Draws rows from a normal distribution with the teacher's mean and deviation in every channel."""

    def __init__(self, table: Tensor, entries: int, seed: int) -> None:
        self.mean, self.std = moments(table, entries)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, pieces: Tensor, counts: Tensor) -> Tensor:
        """As many rows as there are counts."""
        return torch.randn(len(counts), *self.mean.shape, generator=self.generator) * self.std + self.mean

    def facts(self) -> dict[str, object]:
        """The mean deviation of a channel."""
        return {"mean_deviation": float(self.std.mean())}


class Composer:
    """Makes rows of one tensor of the vocabulary, `[teacher's entries, ...]` in any float type."""

    def __init__(self, name: str, table: Tensor, entries: int, fallback: int | None, maker: Maker | None) -> None:
        """`entries`: rows that the teacher's tokenizer uses, the others pad. `fallback`: a row for what is unmapped."""
        self.name, self.table, self.entries, self.unknown, self.maker = name, table, entries, fallback, maker

    def fallback(self) -> Tensor:
        """The row for what nothing in the teacher stands for: that of its unknown token, else the mean of all."""
        return moments(self.table, self.entries)[0] if self.unknown is None else self.table[self.unknown]

    def blocks(self, combination: Combination, dtype: torch.dtype) -> Iterator[Tensor]:
        """The new rows in order, in `dtype`. Raises `UserError` for a row of the teacher that is no number."""
        width = max(1, self.table[0].numel())
        most = max(1, BLOCK_VALUES // width)
        lengths = np.diff(combination.offsets)
        start = 0
        while start < combination.size:
            stop = int(np.searchsorted(combination.offsets, combination.offsets[start] + most, side="right")) - 1
            stop = min(max(stop, start + 1), start + most)
            yield self._block(combination, start, stop, lengths[start:stop], dtype)
            start = stop

    def _block(self, combination: Combination, start: int, stop: int, lengths: np.ndarray, dtype: torch.dtype) -> Tensor:
        part = slice(int(combination.offsets[start]), int(combination.offsets[stop]))
        rows, weights = torch.from_numpy(combination.rows[part]), torch.from_numpy(combination.weights[part])
        counts, made = torch.from_numpy(lengths), torch.from_numpy(combination.made[start:stop])
        firsts = counts.cumsum(0) - counts
        result = torch.empty(stop - start, *self.table.shape[1:], dtype=dtype)
        alone = counts == 1
        alone[alone.clone()] = weights[firsts[alone]] == 1
        result[alone] = self.table[rows[firsts[alone]]].to(dtype)
        summed = (counts > 0) & ~alone & ~made
        for places, way in ((summed, self._sums), (made, self._made)):
            if places.any():
                of_these = torch.repeat_interleave(places, counts)
                result[places] = way(rows[of_these], weights[of_these], counts[places]).to(dtype)
        if (counts == 0).any():
            result[counts == 0] = self.fallback().to(dtype)
        if not torch.isfinite(result).all():
            self._require_finite(rows)
        return result

    def _sums(self, rows: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
        """Weighted sums `[n, ...]`, fp32."""
        used, rows = rows.unique(return_inverse=True)
        table = self.table[used].float().view(len(used), -1)
        bags = torch.nn.functional.embedding_bag(rows, table, counts.cumsum(0) - counts, mode="sum", per_sample_weights=weights)
        return bags.view(len(counts), *self.table.shape[1:])

    def _made(self, rows: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
        """Rows of the maker `[n, ...]`, fp32."""
        assert self.maker is not None
        return self.maker(self.table[rows].float(), counts)

    def _require_finite(self, rows: Tensor) -> None:
        """Name the row behind a result that is no number."""
        finite = torch.isfinite(self.table[rows]).view(len(rows), -1).all(dim=1)
        if finite.all():
            raise UserError(f"{self.name}: the new rows do not fit their type: choose another one with --dtype")
        raise UserError(
            f"{self.name}: row {int(rows[~finite][0])} has values that are not finite (NaN or infinity): the teacher is "
            "damaged, get it again"
        )
