"""Which source each sequence of a stage comes from: a fixed rule with an error that does not grow.

Sources are the leaves of a Huffman tree over their weights. At each node the m-th sequence that arrives goes left when
round(m x share of the left side) rises: a Bresenham line, whose error is at most 1/2 sequence. Down a path errors
shrink: a child with share p of its parent is off by at most 1/2 + p x the parent's. Huffman merges the lightest first,
so that p x p' <= 1/2 for every child and its parent, and the sum stays below 2 for any weights and any number of sources:

    | sequences of a source among the first m  -  m x weight |  <=  bound  <  2       for every m

and twice that for any window of sequences. The place in the tree and the count so far are functions of m alone, so the
rule needs no state but m, and a step's whole batch is worked out at once, in integers.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from megatron_recipes.data.corpus import Int64Array

SCALE = 2**30  # weights become integers of this sum: 2 x m x weight stays below 2^62
MOST_SEQUENCES = 2**31


class Blend:
    """The order of sources for weights that sum to 1. Sources are numbered as the weights are."""

    def __init__(self, weights: Sequence[float]) -> None:
        assert weights and min(weights) > 0 and abs(sum(weights) - 1.0) < 1e-6, weights
        self.weights = np.asarray(weights, dtype=np.float64)
        heap = [(max(1, round(weight * SCALE)), leaf - len(weights)) for leaf, weight in enumerate(weights)]
        heapq.heapify(heap)
        children, parts = [], []
        while len(heap) > 1:
            first, second = heapq.heappop(heap), heapq.heappop(heap)
            children.append((second[1], first[1]))  # leaf i is -n + i, node k is k
            parts.append((second[0], first[0]))
            heapq.heappush(heap, (first[0] + second[0], len(children) - 1))
        self._root = heap[0][1]
        self._children = np.array(children, dtype=np.int64).reshape(-1, 2)
        self._left = np.array([left for left, _ in parts], dtype=np.int64)
        self._both = np.array([left + right for left, right in parts], dtype=np.int64)

    def _left_of(self, node: Int64Array | int, count: Int64Array | int) -> Int64Array:
        """How many of the first `count` sequences at `node` go left: rounded to the nearest, halves up."""
        both = self._both[node]
        return (2 * count * self._left[node] + both) // (2 * both)

    def sources(self, first: int, count: int) -> Int64Array:
        """The source of each of the sequences `first` ... `first + count - 1`, int64 [count]."""
        assert first >= 0 and first + count <= MOST_SEQUENCES, (first, count)
        node = np.full(count, self._root, dtype=np.int64)
        rank = np.arange(first, first + count, dtype=np.int64)  # among the sequences that reach the node
        while len(inner := np.flatnonzero(node >= 0)):
            here, number = node.take(inner), rank.take(inner)
            twice_left, twice_both = 2 * self._left.take(here), 2 * self._both.take(here)
            # as in `_left_of`: the next sequence goes left where the remainder carries
            before, remainder = np.divmod(number * twice_left + self._both.take(here), twice_both)
            right = remainder + twice_left < twice_both
            node[inner] = self._children.take(2 * here + right)
            rank[inner] = np.where(right, number - before, before)
        return node + len(self.weights)

    def counts(self, total: int) -> Int64Array:
        """How many of the first `total` sequences each source has, int64 [sources]; without going through them."""
        assert 0 <= total <= MOST_SEQUENCES, total
        counts = np.zeros(len(self.weights), dtype=np.int64)
        pending = [(self._root, total)]
        while pending:
            node, number = pending.pop()
            if node < 0:
                counts[node] = number
                continue
            left = int(self._left_of(node, number))
            pending += [(int(self._children[node, 0]), left), (int(self._children[node, 1]), number - left)]
        return counts

    @property
    def bounds(self) -> np.ndarray:
        """For each source the largest possible | its sequences among the first m - m x weight |, float64 [sources]."""
        bounds = np.zeros(len(self.weights))
        pending = [(self._root, 0.0)]
        while pending:
            node, error = pending.pop()
            if node < 0:
                bounds[node] = error
                continue
            share = float(self._left[node] / self._both[node])
            pending.append((int(self._children[node, 0]), 0.5 + share * error))
            pending.append((int(self._children[node, 1]), 0.5 + (1.0 - share) * error))
        return bounds

    def window_error(self, window: int) -> float:
        """The largest possible difference of a source's share in any `window` consecutive sequences from its weight."""
        return float(2.0 * self.bounds.max() / window)

    def measured_window_error(self, sequences: int, window: int) -> float:
        """The same as it really comes out among the first `sequences`; takes 8 bytes a sequence and source."""
        drawn = self.sources(0, sequences)
        worst = 0.0
        for source, weight in enumerate(self.weights):
            seen = np.concatenate([[0], np.cumsum(drawn == source)])
            worst = max(worst, float(np.abs((seen[window:] - seen[:-window]) / window - weight).max()))
        return worst
