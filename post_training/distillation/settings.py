"""The recipe of a distillation: what decides the student's weights, apart from the student and the vectors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from mecellem.errors import UserError

LossName = Literal["cosine", "mse", "relational"]
Trained = Literal["all", "embeddings", "embeddings+dense"]
Compute = Literal["auto", "fp32", "bf16"]
CPU_PARTS = range(8, 33)  # texts at a time that CPUs are fast with


@dataclass(frozen=True, slots=True)
class DistillationSettings:
    """The paper below is embeddingmagibu-200m's (arXiv 2605.29992), as its text has it where its code differs."""

    loss: LossName = "cosine"
    """cosine: 1 - cos (the paper); mse: mean squared difference (Reimers and Gurevych 2020); relational: mean squared
    difference of the cosines between the texts of a batch, the teacher's and the student's (Passalis and Tefas 2018 and Park
    et al. 2019 have the idea), for which widths may differ"""
    epochs: float = 1.0
    """passes over the texts where --steps is None (the paper: 1)"""
    steps: int | None = None
    """optimiser steps; None: as many as --epochs has"""
    batch_size: int = 256
    """texts in a batch over all ranks (the paper)"""
    mini_batch_size: int | None = None
    """texts that a rank has in memory at a time, a divisor of its share; memory and speed, not results; None: on GPUs the
    whole share, on CPUs about 32, which their caches hold (1.8 x the speed of 128 with three layers of e5-small)"""
    max_length: int | None = None
    """tokens of a text in training, the prompt's included; None: as many as the teacher read, or fewer where the student takes
    fewer"""
    saved_length: int | None = None
    """tokens that the saved model takes, at most the positions that it has learned; rotary ones have no end (the paper: 8,192,
    four times what its teacher takes and its training saw); None: as many as the student came with"""
    lr: float = 5e-5
    """peak learning rate, AdamW (the paper; its code trained embeddings alone at 5e-4)"""
    embedding_lr: float | None = None
    """of the token embeddings; None: --lr (new tokens of a grafted vocabulary may need more than a backbone that was kept)"""
    warmup_share: float = 0.01
    """share of the steps with rising rate, then cosine decay to 0 (the paper; its library decays linearly)"""
    weight_decay: float = 0.01
    """of AdamW; none on biases and norms (the paper)"""
    clip: float = 1.0
    """largest norm of the gradient (the paper)"""
    dropout: float | None = 0.0
    """of the student in training (the paper's has none: the teacher's vector is the whole answer, and noise only blurs it; it
    also lowers the cosines that the relational loss compares); None: as its config says, which the saved model keeps"""
    train: Trained = "all"
    """all; embeddings: the token embeddings; embeddings+dense: also the Dense modules (stages of the paper's code)"""
    compute: Compute = "auto"
    """bf16: multiply in bfloat16 with the weights kept in fp32 (autocast; the paper: weights in bf16, too); fp32; auto: bf16 on
    GPUs, fp32 on CPUs"""
    gradient_checkpointing: bool = False
    """compute activations a second time instead of keeping them: a third slower, long texts fit (the paper: on)"""
    group_by_length: bool = True
    """texts of one batch are of similar length, so that little is padding; the order of batches is random"""
    held_out: float = 0.01
    """share of the texts, by their hash, that is not trained on and chooses the checkpoint; 0: none, the last one is kept"""
    patience: int = 0
    """looks at the held-out texts without a better score after which the training ends; 0: never"""
    project: bool = False
    """add a Dense module to the student where its vectors are not as wide as the teacher's"""
    prompt: str | None = None
    """stands before every text in training: the name of one of the student's prompts, or the words themselves; None: what the
    teacher was given"""
    seed: int = 0
    """decides the order of texts, dropout and a projection's first weights"""

    def __post_init__(self) -> None:
        """Refuse values that would train nothing or never end, and those that others leave without effect."""
        for name, number in asdict(self).items():
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"--{name.replace('_', '-')} {number} is no number that a training can have")
        for name in ("steps", "batch_size", "mini_batch_size", "saved_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if not (self.lr > 0 and self.epochs > 0 and self.clip > 0 and (self.embedding_lr is None or self.embedding_lr > 0)):
            raise UserError("--lr, --embedding-lr, --epochs and --clip must be above 0")
        if not (0 <= self.warmup_share <= 1 and 0 <= self.held_out < 1):
            raise UserError("--warmup-share and --held-out are shares: from 0 to 1, and not all can be held out")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError("--dropout is a share: at least 0 and below 1")
        if self.weight_decay < 0 or self.patience < 0:
            raise UserError("--weight-decay and --patience must be at least 0")
        if self.steps is not None and self.epochs != 1:
            raise UserError("--epochs has no effect beside --steps: leave one of them out")
        if self.patience and not self.held_out:
            raise UserError("--patience needs held-out texts to look at: give --held-out a share above 0")
        if self.loss == "relational" and self.mini_batch_size is not None:
            raise UserError("--mini-batch-size would leave out relations between its parts: not with --loss relational")
        if self.loss == "relational" and self.batch_size < 2:
            raise UserError("--loss relational compares texts of a batch: give --batch-size 2 or more")
        if self.loss == "relational" and self.project:
            raise UserError("--loss relational needs no vectors of the teacher's width: leave --project out")
        if self.train == "embeddings" and self.project:
            raise UserError("--project adds a Dense module, which --train embeddings would leave as it is: choose another")

    def part_size(self, ranks: int, device: str) -> int:
        """Texts that a rank takes at a time. Raises `UserError` for a batch that cannot be shared so."""
        if self.batch_size % ranks:
            raise UserError(f"--batch-size {self.batch_size} is shared by {ranks} ranks: give a multiple of {ranks}")
        share = self.batch_size // ranks
        if self.loss == "relational":
            return share
        part = self.mini_batch_size or (cpu_part(share) if device == "cpu" else share)
        if share % part:
            raise UserError(f"--mini-batch-size {part} does not divide {share}, a rank's share of the batch: give a divisor")
        return part


def cpu_part(share: int) -> int:
    """The largest part of a rank's share that a CPU's caches hold; all of it where no such part divides it."""
    return max((part for part in CPU_PARTS if share % part == 0), default=share)
