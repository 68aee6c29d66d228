"""Bootstrap over queries: how far a mean, or a difference of two systems, depends on which queries were asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
SEED = 0


def mean_interval(samples: Sequence[Sequence[float]], confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over tasks of the mean over queries.

    `samples` holds one sequence of per-query values a task; queries are redrawn within their task, tasks stay. For a
    paired comparison give the differences of two systems on the same queries.
    """
    from scipy.stats import bootstrap

    def statistic(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean([np.mean(part, axis=axis) for part in parts], axis=0)

    arrays = [np.asarray(values, dtype=np.float64) for values in samples]
    assert arrays and all(len(array) > 1 for array in arrays), "a bootstrap needs at least two queries a task"
    result = bootstrap(
        arrays,
        statistic,
        n_resamples=RESAMPLES,
        batch=200,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(result.low), float(result.high)


def redrawn_means(samples: Sequence[np.ndarray], resamples: int) -> np.ndarray:
    """Means over tasks of means over redrawn queries, `[resamples, systems]`; the same queries for all systems.

    `samples`: a task's values `[systems, queries]`. A second call with as many tasks and queries redraws the same queries.
    """
    rng = np.random.default_rng(SEED)
    parts = []
    for values in samples:
        queries = values.shape[1]
        drawn = rng.multinomial(queries, np.full(queries, 1 / queries), size=resamples)
        parts.append(drawn @ values.T / queries)
    means: np.ndarray = np.mean(parts, axis=0)
    return means
