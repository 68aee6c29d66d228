"""All ways to spell words by pieces, as arrays: expectation-maximisation and best paths without a loop over words.

An edge is one piece at one place of one word. Edges are sorted by where they end, so that a pass over the at most 200 ends
computes all words at once. Reference: Kudo (2018), Subword Regularization.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_SMALLEST = 1e-300  # probability of a word below which it is left out of a sum: it would underflow


@dataclass(frozen=True, slots=True)
class Lattice:
    """Edges of many words, sorted by end. `order[end]` is the slice of edges that end there, for end = 1, 2, ..."""

    word: NDArray[np.int32]  # (edges,)
    start: NDArray[np.int16]
    end: NDArray[np.int16]
    piece: NDArray[np.int32]
    lengths: NDArray[np.int16]  # (words,), in characters
    order: tuple[slice, ...]

    @property
    def longest(self) -> int:
        """Characters of the longest word."""
        return len(self.order) - 1

    def only(self, alive: NDArray[np.bool_]) -> Lattice:
        """The lattice of the pieces that are alive: `alive` is (pieces,)."""
        keep = alive[self.piece]
        return _sorted(self.word[keep], self.start[keep], self.end[keep], self.piece[keep], self.lengths)

    def words(self, chosen: NDArray[np.int64]) -> Lattice:
        """The lattice of some of the words, by their numbers, in that order."""
        place = np.full(self.lengths.size, -1, np.int32)
        place[chosen] = np.arange(chosen.size, dtype=np.int32)
        keep = place[self.word] >= 0
        part = (self.start[keep], self.end[keep], self.piece[keep])
        return _sorted(place[self.word[keep]], *part, self.lengths[chosen])


def build(words: Sequence[str], number_of: Mapping[str, int], whole: bool = True) -> Lattice:
    """The lattice of `words` over the pieces of `number_of`; without `whole`, a word itself is no edge of it."""
    most = max(map(len, number_of), default=1)
    found_word, found_place, found_piece = array("i"), array("i"), array("i")
    get = number_of.get
    for index, word in enumerate(words):
        length = len(word)
        for start in range(length):
            for end in range(start + 1, min(length, start + most) + 1):
                number = get(word[start:end])
                if number is not None and (whole or end - start < length):
                    found_word.append(index)
                    found_place.append(start << 16 | end)
                    found_piece.append(number)
    place = np.array(found_place, np.int32)
    return _sorted(
        np.array(found_word, np.int32),
        (place >> 16).astype(np.int16),
        (place & 0xFFFF).astype(np.int16),
        np.array(found_piece, np.int32),
        np.array([len(word) for word in words], np.int16),
    )


def _sorted(
    word: NDArray[np.int32],
    start: NDArray[np.int16],
    end: NDArray[np.int16],
    piece: NDArray[np.int32],
    lengths: NDArray[np.int16],
) -> Lattice:
    by_end = np.argsort(end, kind="stable")
    word, start, end, piece = word[by_end], start[by_end], end[by_end], piece[by_end]
    longest = int(lengths.max(initial=0))
    cuts = np.searchsorted(end, np.arange(longest + 2))
    order = tuple(slice(int(cuts[place]), int(cuts[place + 1])) for place in range(longest + 1))
    return Lattice(word, start, end, piece, lengths, order)


def expected_counts(lattice: Lattice, probabilities: Floats, counts: Floats, scale: Floats) -> Floats:
    """(languages, pieces): how often each piece is expected, given (pieces,) probabilities and (languages, words) counts.

    `scale` is about the information of a character in each word, in nats (words,): it takes no part in the result and keeps
    the probabilities of long words from underflow.
    """
    words, longest = lattice.lengths.size, lattice.longest
    everyone = np.arange(words)
    edge = probabilities[lattice.piece] * np.exp(scale[lattice.word] * (lattice.end - lattice.start))
    before = np.zeros((longest + 1, words))
    before[0] = 1
    for part in lattice.order[1:]:
        if part.stop > part.start:
            mass = before[lattice.start[part], lattice.word[part]] * edge[part]
            before[lattice.end[part.start]] = np.bincount(lattice.word[part], mass, minlength=words)
    behind = np.zeros((longest + 1, words))
    behind[lattice.lengths, everyone] = 1
    for part in reversed(lattice.order[1:]):
        if part.stop > part.start:
            mass = behind[lattice.end[part.start], lattice.word[part]] * edge[part]
            np.add.at(behind, (lattice.start[part], lattice.word[part]), mass)
    total = before[lattice.lengths, everyone]
    spelled = np.isfinite(total) & (total > _SMALLEST)
    weight = np.divide(counts, total, out=np.zeros_like(counts), where=spelled)
    mass = before[lattice.start, lattice.word] * edge * behind[lattice.end, lattice.word]
    mass[~np.isfinite(mass)] = 0.0  # of words that are left out
    return np.stack([np.bincount(lattice.piece, mass * row[lattice.word], minlength=probabilities.size) for row in weight])


def best_paths(lattice: Lattice, scores: Floats) -> tuple[Floats, Ints]:
    """Of each word its best path: the sum of scores (words,), minus infinity where there is none, and its pieces (words,)."""
    words, longest = lattice.lengths.size, lattice.longest
    best = np.full((longest + 1, words), -np.inf)
    steps = np.zeros((longest + 1, words), np.int64)
    best[0] = 0
    edge = scores[lattice.piece]
    for part in lattice.order[1:]:
        if part.stop == part.start:
            continue
        end = int(lattice.end[part.start])
        value = best[lattice.start[part], lattice.word[part]] + edge[part]
        taken = steps[lattice.start[part], lattice.word[part]] + 1
        worst_first = np.lexsort((value, lattice.word[part]))
        word = lattice.word[part][worst_first]
        last = np.flatnonzero(np.append(np.diff(word) > 0, True))
        best[end, word[last]] = value[worst_first][last]
        steps[end, word[last]] = taken[worst_first][last]
    everyone = np.arange(words)
    return best[lattice.lengths, everyone], steps[lattice.lengths, everyone]
