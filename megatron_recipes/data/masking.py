"""Masked language modelling's corruption, 80/10/10 (Devlin et al. 2019), vectorised and reproducible by position."""

from __future__ import annotations

from typing import Any

import numpy as np

from megatron_recipes.data.corpus import Int64Array, SpecialTokens
from megatron_recipes.data.random_streams import WORDS_PER_BLOCK, Stream, random_words

IGNORE_INDEX = -100  # torch's default `ignore_index` of cross_entropy: no loss here
MASK_SHARE = 0.8  # of the chosen tokens become [MASK] (Devlin et al. 2019, 3.1)
RANDOM_SHARE = 0.1  # become a random ordinary token; the rest stay as they are
SCALE = 2**32

UInt64Array = np.ndarray[Any, np.dtype[np.uint64]]


class Masker:
    """Chooses and corrupts tokens. Each is chosen with `probability`, special tokens never.

    A sequence of which chance chose no token gets one: the one that came closest.
    """

    def __init__(self, special: SpecialTokens, probability: float, seed: int) -> None:
        self.mask_id, self.seed = special.mask, seed
        self.special = np.zeros(special.vocab_size, dtype=np.bool_)
        self.special[list(special.ids)] = True
        self.ordinary = np.flatnonzero(~self.special)
        self.threshold = round(probability * SCALE)

    def words(self, epoch: int, samples: Int64Array, length: int) -> UInt64Array:
        """One 64-bit word a token, [b, s]: a function of (seed, epoch, sample, column) and of `length` alone.

        Consecutive samples lie next to each other in the stream and are drawn at once.
        """
        blocks = -(-length // WORDS_PER_BLOCK)
        runs = np.split(samples, np.flatnonzero(np.diff(samples) != 1) + 1)
        words = [
            random_words(self.seed, epoch, Stream.MASKS, int(run[0]) * blocks, len(run) * blocks * WORDS_PER_BLOCK)
            for run in runs
        ]
        return np.concatenate(words).reshape(len(samples), -1)[:, :length]

    def __call__(self, tokens: Int64Array, epoch: int, samples: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Corrupt `tokens` [b, s], which are the epoch's windows `samples` [b].

        Returns the corrupted copy and the labels, both int64 [b, s]; labels are -100 where no token was chosen.
        """
        words = self.words(epoch, samples, tokens.shape[1])
        chance = (words >> np.uint64(32)).astype(np.int64)  # the upper half chooses, the lower half says what becomes
        chance[self.special[tokens]] = SCALE
        chosen = chance < self.threshold
        rows = np.flatnonzero(~chosen.any(axis=1))
        closest = chance[rows].argmin(axis=1)
        chosen[rows, closest] = chance[rows, closest] < SCALE  # a row of nothing but special tokens stays untouched

        labels = np.where(chosen, tokens, IGNORE_INDEX)
        inputs = tokens.copy()
        places = np.flatnonzero(chosen)
        fate = (words.ravel()[places] & np.uint64(SCALE - 1)).astype(np.int64)
        to_mask, to_random = round(MASK_SHARE * SCALE), round((MASK_SHARE + RANDOM_SHARE) * SCALE)
        masked, random = fate < to_mask, (fate >= to_mask) & (fate < to_random)
        inputs.ravel()[places[masked]] = self.mask_id
        # Within its tenth, `fate` is uniform over 429M values: scaled down, it picks the replacement.
        picks = (fate[random] - to_mask) * len(self.ordinary) // (to_random - to_mask)
        inputs.ravel()[places[random]] = self.ordinary[picks]
        return inputs, labels
