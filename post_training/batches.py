"""Which pairs stand in which batch: of similar length, no text twice, planned before the training begins.

A text that stands twice in a batch would be its own negative. Batches of similar length hold little padding. The plan is a
plain array, so a training that is resumed, or has more ranks, sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mecellem.errors import UserError

# Rows are sorted by length within so many batches' worth of shuffled rows (as transformers' LengthGroupedSampler does):
# few enough that every batch is still a random draw.
SORTED_BATCHES = 50

Rows = NDArray[np.int64]


def plan_batches(
    texts: NDArray[np.int64],
    lengths: NDArray[np.float64],
    *,
    batch_size: int,
    steps: int | None,
    epochs: float,
    group_by_length: bool,
    seed: int,
) -> Rows:
    """Row numbers of shape [steps, batch_size].

    `texts` [rows, columns] numbers every row's texts, equal texts alike; `lengths` [rows] are in any unit. Without `steps`
    there are `epochs` passes over the rows, of which the last may be a part. What does not fill a batch at the end of a pass
    is left out. Raises `UserError` when not even one batch of different texts can be made.
    """
    rng = np.random.default_rng(seed)
    batches: list[list[int]] = []
    passes = 0
    while steps is None or len(batches) < steps:
        found = list(epoch_batches(texts, lengths if group_by_length else None, batch_size, rng))
        if not found:
            raise UserError(
                f"{len(texts):,} pairs make no batch of {batch_size} in which all texts differ: give more pairs or lower "
                "--batch-size"
            )
        share = 1.0 if steps is not None else min(1.0, epochs - passes)
        batches += found[: max(1, round(len(found) * share))]
        passes += 1
        if steps is None and passes >= epochs:
            break
    plan = np.array(batches[:steps], dtype=np.int64)
    return longest_first(plan, lengths)


def epoch_batches(
    texts: NDArray[np.int64], lengths: NDArray[np.float64] | None, batch_size: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    """The batches of one pass, in random order."""
    order = rng.permutation(len(texts))
    batches: list[list[int]] = []
    left: list[int] = []
    for start in range(0, len(order), SORTED_BATCHES * batch_size):
        pool = np.array([*left, *order[start : start + SORTED_BATCHES * batch_size]], dtype=np.int64)
        if lengths is not None:
            pool = pool[np.argsort(lengths[pool], kind="stable")]
        full, left = fill(pool.tolist(), texts, batch_size)
        batches += full
    for number in rng.permutation(len(batches)):
        yield batches[number]


def fill(pool: list[int], texts: NDArray[np.int64], batch_size: int) -> tuple[list[list[int]], list[int]]:
    """Cut `pool` into batches without a text twice, in its order as far as that goes; also the rows that are left."""
    batches: list[list[int]] = []
    while True:
        batch: list[int] = []
        seen: set[int] = set()
        passed: list[int] = []
        for place, row in enumerate(pool):
            own = texts[row].tolist()
            if seen.isdisjoint(own):
                batch.append(row)
                seen.update(own)
                if len(batch) == batch_size:
                    passed += pool[place + 1 :]
                    break
            else:
                passed.append(row)
        if len(batch) < batch_size:
            return batches, pool
        batches.append(batch)
        pool = passed


def longest_first(plan: Rows, lengths: NDArray[np.float64]) -> Rows:
    """The plan with its longest batch in front: if memory does not suffice, the first step says so."""
    longest = int(np.argmax(lengths[plan].max(axis=1)))
    plan[[0, longest]] = plan[[longest, 0]]
    return plan
