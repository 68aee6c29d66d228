"""The order of a source's documents in an epoch, by position: no list of documents is ever shuffled or stored.

A number below a x b is a pair (left, right). Each round adds to one half, modulo its range, a random function of the
other: a Feistel network over mixed radices (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Each round
can be undone, so the whole is a permutation. Results beyond the last document go through the network again until they
are not ("cycle walking"), which keeps it a permutation of the documents; a x b exceeds their number by less than a.

The random functions are tables of Philox words, keyed on the run's seed and the epoch, at a counter that the corpus's
own hash gives. With the ends of walks they take 32 x sqrt(documents) bytes: 450 KB for 200 million documents.
"""

from __future__ import annotations

import math

import numpy as np

from megatron_recipes.data.corpus import Int64Array
from megatron_recipes.data.random_streams import Stream, random_words

ROUNDS = 6  # four already make a pseudo-random permutation of random functions (Luby and Rackoff 1988)


class DocumentOrder:
    """The documents 0 ... `count` - 1 in the order of one epoch of the corpus with hash `identity` (hexadecimal)."""

    def __init__(self, seed: int, identity: str, epoch: int, count: int) -> None:
        assert count > 0
        self.count = count
        self.left = math.isqrt(count - 1) + 1
        self.right = -(-count // self.left)
        drawn = (ROUNDS // 2) * (self.left + self.right)
        words = random_words(seed, epoch, Stream.CURRICULUM_ORDER, int(identity[:16], 16), drawn) >> np.uint64(32)
        lengths = np.array([self.right, self.left] * (ROUNDS // 2))
        ranges = np.array([self.left, self.right] * (ROUNDS // 2), dtype=np.uint64)
        # the upper half of words x range: uniform to within range / 2^32
        entries = ((words * np.repeat(ranges, lengths)) >> np.uint64(32)).astype(np.uint32)
        self.tables = np.split(entries, np.cumsum(lengths)[:-1])
        beyond = np.arange(count, self.left * self.right)
        self._ends = self._network(beyond)  # of the walks from there
        # one that comes back to where it began has met no document, so no document's walk leads there
        while len(outside := np.flatnonzero((self._ends >= count) & (self._ends != beyond))):
            self._ends[outside] = self._network(self._ends[outside])

    def _network(self, numbers: Int64Array) -> Int64Array:
        quotients = numbers // self.right
        left, right = quotients.astype(np.uint32), (numbers - quotients * self.right).astype(np.uint32)
        range_left, range_right = np.uint32(self.left), np.uint32(self.right)
        for to_left, to_right in zip(self.tables[::2], self.tables[1::2], strict=True):
            # modulo the range: below zero the difference wraps around to a huge number, and the sum is the smaller one
            left += to_left.take(right)
            np.minimum(left, left - range_left, out=left)
            right += to_right.take(left)
            np.minimum(right, right - range_right, out=right)
        return left * np.int64(self.right) + right

    def documents(self, first: int, count: int) -> Int64Array:
        """The documents at ranks `first` ... `first + count - 1` of the epoch, int64 [count]."""
        assert first >= 0 and first + count <= self.count, (first, count, self.count)
        numbers = self._network(np.arange(first, first + count, dtype=np.int64))
        outside = np.flatnonzero(numbers >= self.count)
        numbers[outside] = self._ends[numbers[outside] - self.count]
        return numbers
