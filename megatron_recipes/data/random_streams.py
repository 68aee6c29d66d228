"""Random bits by position: the Philox counter generator (Salmon et al. 2011), keyed on the run's seed and the epoch.

Any part of a stream can be drawn without drawing what lies before it, so what a sample gets depends on nothing but its
own number. Only the generator's raw output is used: numpy guarantees that it stays the same in every version.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

WORDS_PER_BLOCK = 4  # 64-bit words that Philox-4x64 yields for each value of its counter


class Stream(IntEnum):
    """What the bits are for: each has its own, non-overlapping part of the counter's range."""

    DOCUMENT_ORDER = 1
    WINDOW_ORDER = 2
    MASKS = 3
    CURRICULUM_ORDER = 4


def random_words(seed: int, epoch: int, stream: Stream, block: int, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """`count` uniform 64-bit words of a stream, from its block number `block` (of 4 words) on."""
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    counter = np.array([block, 0, 0, stream], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def permutation(seed: int, epoch: int, stream: Stream, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The numbers 0 to `count` - 1 in random order, int64 [count]."""
    return np.argsort(random_words(seed, epoch, stream, 0, count), kind="stable")
