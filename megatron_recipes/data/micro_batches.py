"""Which sizes of a micro batch deal out the batches of all stages, for the error that refuses another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from megatron_recipes.data.curriculum_stage import Stage


def micro_batch_sizes(stages: Sequence[Stage], data_parallel_size: int) -> list[int]:
    """Every size in tokens, ascending, with which each stage's batch divides over the ranks.

    Of the sizes that cut all stages into the same sequences only the smallest.
    """
    sizes = {rows * stage.seq_len for stage in stages for rows in _divisors(stage.sequences_per_step)}
    return sorted(
        size
        for size in sizes
        if all(
            size >= stage.seq_len and stage.sequences_per_step % (size // stage.seq_len * data_parallel_size) == 0
            for stage in stages
        )
    )


def micro_batch_advice(stages: Sequence[Stage], data_parallel_size: int, micro_batch_tokens: int) -> str:
    """What to do about a size that does not fit: the nearest sizes that do, or the batches with which one would."""
    sizes = micro_batch_sizes(stages, data_parallel_size)
    if sizes:
        nearest = [size for size in sizes if size < micro_batch_tokens][-1:]
        nearest += [size for size in sizes if size > micro_batch_tokens][:1]
        return f"set --micro-batch-tokens {' or '.join(map(str, nearest))}"
    for stage in stages:
        unit = stage.seq_len * data_parallel_size
        low = stage.global_batch_tokens // unit * unit
        if low != stage.global_batch_tokens:
            batches = " or ".join(f"{size:,}" for size in (low, low + unit) if size)
            return (
                f"no size suits so many ranks; set global_batch_tokens of stage {stage.name!r} to {batches}, or train on "
                "another number of ranks"
            )
    return "no size suits all stages: change global_batch_tokens or seq_len of one, or the number of ranks"


def _divisors(number: int) -> list[int]:
    """Every divisor of a positive number, in no order."""
    small = [part for part in range(1, math.isqrt(number) + 1) if number % part == 0]
    return small + [number // part for part in small]
