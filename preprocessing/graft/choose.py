"""Which candidates stay: every language fills its share, in the order of what it gains by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ranking(gains: NDArray[np.float64], shares: Sequence[float]) -> NDArray[np.int64]:
    """Candidates from the first to keep to the last, as indices (candidates,). `gains` is (languages, candidates).

    The candidate that is n-th for a language with share s has the priority n / s there, and its best one counts: of any
    first so many candidates a language has at least its share, more where languages want the same ones or have no more
    that they gain by. Candidates without any gain come last; ties go by the index.
    """
    priority = np.full(gains.shape[1], np.inf)
    for gain, share in zip(gains, shares, strict=True):
        wanted = np.flatnonzero(gain > 0)
        order = wanted[np.argsort(-gain[wanted], kind="stable")]
        priority[order] = np.minimum(priority[order], (np.arange(order.size) + 1) / share)
    return np.argsort(priority, kind="stable")
