"""How much of their wording two documents share: Jaccard similarity of their runs of words, estimated from small sketches.

One permutation hashing (Li, Owen, Zhang, arXiv:1208.1259): every run of words has one hash; its upper bits choose one of 256
bins, and a bin keeps the least hash that falls into it, of that 8 bits (Li, König, arXiv:0910.3349). The share of equal ones
among the bins that either document fills is the estimate; its standard error is 0.03 at most, and less for short documents,
of which hardly two runs share a bin. A sketch takes 257 bytes, whatever the length of the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from preprocessing.turkish import fold, words

_BINS = 256
_PAIRS = 4_096  # compared at a time: 1 MB each, which a processor's cache holds
_LAST = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True)
class Overlap:
    """When two documents count as of one wording.

    Both have at most `short_words` words, or the runs of `run_words` words of the two have a Jaccard similarity of
    `least`. A `least` of 0 makes every two documents agree, and nothing is computed.
    """

    least: float
    short_words: int
    run_words: int

    def sketches(self, texts: Sequence[str]) -> np.ndarray:
        """What `agree` compares, uint8: (texts, 257), first whether a text is long, then its bins; (texts, 0) for `least` 0.

        A bin that no run fell into is 0. Case, circumflexes, punctuation and white space make no difference.
        """
        if not self.least:
            return np.empty((len(texts), 0), np.uint8)
        found = [words(fold(text)) for text in texts]
        lengths = np.array([len(each) for each in found], np.int64)
        hashes = np.fromiter((crc32(word.encode()) for each in found for word in each), np.uint64, int(lengths.sum()))
        owners = np.repeat(np.arange(len(texts)), lengths)
        runs = max(0, len(hashes) - self.run_words + 1)
        mixed = np.zeros(runs, np.uint64)
        for place in range(self.run_words):
            mixed = _mix(mixed + hashes[place : place + runs])
        whole = owners[:runs] == owners[len(owners) - runs :]  # no run goes from one text into the next
        places = owners[:runs][whole] * _BINS + (mixed[whole] >> np.uint64(56)).astype(np.int64)
        least = np.full(len(texts) * _BINS, _LAST)
        np.minimum.at(least, places, mixed[whole])
        bins = np.where(least == _LAST, 0, least % np.uint64(255) + np.uint64(1)).astype(np.uint8)
        is_long = (lengths > self.short_words).astype(np.uint8)
        return np.concatenate((is_long[:, None], bins.reshape(len(texts), _BINS)), axis=1)

    def agree(self, ones: np.ndarray, others: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether documents `one` of `ones` and `other` of `others` agree, pair by pair; `ones`, `others`: sketches."""
        agree = np.ones(len(one), bool)
        asked = np.flatnonzero(ones[one, 0] | others[other, 0]) if self.least else np.empty(0, np.int64)
        for at in range(0, len(asked), _PAIRS):
            pairs = asked[at : at + _PAIRS]
            agree[pairs] = jaccard(ones[one[pairs], 1:], others[other[pairs], 1:]) >= self.least
        return agree


def jaccard(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of the runs of documents, pair by pair, from their bins (pairs, bins); 0 without runs."""
    empty = np.sum((one | other) == 0, axis=1, dtype=np.uint16)
    same = np.sum(one == other, axis=1, dtype=np.uint16) - empty
    return same / np.maximum(_BINS - empty, 1)


def _mix(values: np.ndarray) -> np.ndarray:
    """The last steps of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every bit that changes changes half of the result's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
