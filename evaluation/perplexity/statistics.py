"""Perplexity and bits per byte with intervals by bootstrap over documents, and the difference of two models, paired."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
LOG_2 = math.log(2.0)

Array = np.ndarray
Statistic = Callable[[Sequence[Array]], Array]


def ratio(parts: Sequence[Array]) -> Array:
    """Sum of the first over sum of the second, along the last axis: a mean per token, or per byte."""
    return parts[0].sum(axis=-1) / parts[1].sum(axis=-1)


def ratio_difference(parts: Sequence[Array]) -> Array:
    """`ratio` of the last two arrays minus that of the first two."""
    return ratio(parts[2:]) - ratio(parts[:2])


def interval(statistic: Statistic, columns: Sequence[Sequence[float]], seed: int) -> tuple[float, float] | None:
    """95% percentile interval of a statistic over documents redrawn together, `columns` `[documents]` each.

    None for fewer than two documents: nothing is known of how they vary.
    """
    from scipy.stats import bootstrap

    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    if len(arrays[0]) < 2:
        return None
    found = bootstrap(
        arrays,
        lambda *parts, axis=-1: statistic(parts),
        n_resamples=RESAMPLES,
        batch=max(1, 2_000_000 // len(arrays[0])),
        vectorized=True,
        paired=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
