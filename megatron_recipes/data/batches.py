"""From a corpus to micro batches. The cursor is the step number: any layout sees the same global batch at a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from megatron_recipes.data.corpus import Int64Array, SpecialTokens, TokenCorpus
from megatron_recipes.data.masking import IGNORE_INDEX, Masker
from megatron_recipes.data.packing import PackedCorpus

FILLER = -1  # sample index of a row of [PAD] without labels


@dataclass(frozen=True, slots=True)
class MlmBatch:
    """One micro batch of b packed sequences of s tokens. Attention stays within a segment."""

    input_ids: Int64Array  # [b, s]
    labels: Int64Array  # [b, s]; -100 where there is no loss
    cu_seqlens: np.ndarray[Any, np.dtype[np.int32]]  # [segments + 1] over the b x s flattened tokens


class MlmDataset:
    """Packed, masked sequences, numbered without end: sample i is window i % `windows` of epoch i // `windows`.

    With `shuffle` off (validation) every epoch is epoch 0: the same order, the same masks.
    """

    def __init__(
        self,
        corpus: TokenCorpus,
        special: SpecialTokens,
        sequence_length: int,
        mask_probability: float,
        seed: int,
        shuffle: bool,
    ) -> None:
        """Raises `UserError` when training on a corpus that is shorter than one sequence."""
        self.packed = PackedCorpus(corpus, special, sequence_length, seed, shuffle)
        self.masker = Masker(special, mask_probability, seed)
        self.sequence_length, self.shuffle, self.pad = sequence_length, shuffle, special.pad

    @property
    def windows(self) -> int:
        """Sequences per epoch."""
        return self.packed.windows

    def micro_batch(self, samples: Int64Array) -> MlmBatch:
        """The samples [b] as one batch; `FILLER` (-1) yields a row of [PAD] without labels."""
        samples = np.asarray(samples, dtype=np.int64)
        shape = (len(samples), self.sequence_length)
        input_ids = np.full(shape, self.pad, dtype=np.int64)
        labels = np.full(shape, IGNORE_INDEX, dtype=np.int64)
        boundaries = np.zeros(shape, dtype=np.bool_)
        boundaries[:, 0] = True
        epochs, windows = np.divmod(samples, self.windows)
        for epoch in np.unique(epochs[samples != FILLER]):
            rows = np.flatnonzero((epochs == epoch) & (samples != FILLER))
            number = int(epoch) if self.shuffle else 0
            tokens, boundaries[rows] = self.packed.windows_of(number, windows[rows])
            input_ids[rows], labels[rows] = self.masker(tokens, number, windows[rows])
        cu_seqlens = np.append(np.flatnonzero(boundaries), boundaries.size).astype(np.int32)
        return MlmBatch(input_ids, labels, cu_seqlens)


def training_batches(
    dataset: MlmDataset,
    step: int,
    global_batch_size: int,
    micro_batch_size: int,
    data_parallel_rank: int,
    data_parallel_size: int,
) -> Iterator[MlmBatch]:
    """The micro batches of one data-parallel rank for optimizer step `step` (from 0).

    Step t consists of the samples t x `global_batch_size` + 0, 1, 2, ... on every layout. Over ranks and micro batches
    they are dealt in turns of `micro_batch_size`.
    """
    per_pass = micro_batch_size * data_parallel_size
    assert global_batch_size % per_pass == 0, (global_batch_size, micro_batch_size, data_parallel_size)
    first = step * global_batch_size + data_parallel_rank * micro_batch_size
    for offset in range(0, global_batch_size, per_pass):
        yield dataset.micro_batch(first + offset + np.arange(micro_batch_size))


def validation_batches(
    dataset: MlmDataset, sequences: int, micro_batch_size: int, data_parallel_rank: int, data_parallel_size: int
) -> Iterator[MlmBatch]:
    """One data-parallel rank's share of the first `sequences` samples (all of them where the split is smaller).

    Every rank gets the same number of micro batches of the same size, which collective calls need; where the samples
    do not divide evenly the last rows are fillers without labels, so that sums over ranks are the same on any layout.
    """
    count = min(sequences, dataset.windows)
    per_pass = micro_batch_size * data_parallel_size
    for offset in range(0, count, per_pass):
        samples = offset + data_parallel_rank * micro_batch_size + np.arange(micro_batch_size)
        yield dataset.micro_batch(np.where(samples < count, samples, FILLER))
