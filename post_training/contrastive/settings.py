"""The recipe of a contrastive training: what decides the weights, apart from the model and the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from mecellem.errors import UserError
from post_training.model_folder import PoolingName

LossName = Literal["mnrl", "cached-mnrl", "gist", "cached-gist"]
MarginStrategy = Literal["absolute", "relative"]

GUIDED = ("gist", "cached-gist")
CACHED = ("cached-mnrl", "cached-gist")
OF_CROPS = ("window_words", "crop_min_words", "crop_largest_share")
MINI_BATCH = 32  # sentence-transformers' own default for the cached losses


@dataclass(frozen=True, slots=True)
class ContrastiveSettings:
    """The recipe, by default the short one that compares checkpoints; `FULL` is the one for a model that is to be used.

    The paper's own numbers for this step are unpublished; each value names where it comes from.
    """

    steps: int | None = 60
    """optimiser steps; what about 15 s on two cores allow for a model of 6 layers x 256; None: as many as --epochs has"""
    epochs: float = 1.0
    """passes over the pairs where --steps is None (sentence-transformers' examples: 1)"""
    batch_size: int = 64
    """pairs in a batch over all ranks, so batch_size - 1 negatives each, and hard ones besides; set by the same budget
    (scale: as many as fit in memory, or more with a cached loss)"""
    train_seq_length: int = 16
    """tokens of a text in training, the rest is cut; the same budget buys more pairs this way than at 32 or 64, and scored
    higher on the validation split (scale: as long as the documents, since short post-training is reported to hurt legal
    retrieval)"""
    query_seq_length: int | None = None
    """tokens of a query, in training and in the saved model; None: as of any text"""
    saved_seq_length: int | None = None
    """tokens that the saved model takes; None: all that its positions and tokenizer allow, as nothing in it is shortened"""
    loss: LossName = "mnrl"
    """mnrl: InfoNCE over the batch's other positives and all hard negatives (van den Oord et al. 2018); cached-mnrl: the
    same at any batch size (GradCache, Gao et al. 2021); gist, cached-gist: without those that a guide model finds nearer
    than the positive (GISTEmbed, Solatorio 2024)"""
    mini_batch_size: int | None = None
    """texts that a cached loss has in memory at a time; memory and speed, not results; None: 32, the library's"""
    matryoshka_dims: tuple[int, ...] = ()
    """widths to which vectors may be cut later, the full width among them (Kusupati et al. 2022); none: the full one only"""
    guide_margin: float = 0.0
    """a guided loss drops negatives nearer than the positive less this (GISTEmbed: 0; NV-Retriever's 95%: 0.05, relative)"""
    guide_margin_strategy: MarginStrategy = "absolute"
    """absolute: positive - margin; relative: positive - margin x |positive|"""
    pooling: PoolingName | None = None
    """how token vectors become one; None: mean, or a sentence-transformers folder's own"""
    query_prompt: str | None = None
    """put before every query, in training and in the saved model ("query: " for E5); None: the folder's own, or none"""
    document_prompt: str | None = None
    """put before every document, likewise ("passage: " for E5)"""
    lr: float = 5e-4
    """peak learning rate, AdamW; ahead of 1e-3 on the validation split at this shape, where higher rates were not tried
    (a base model: 2e-5 to 5e-5)"""
    warmup_share: float = 0.1
    """share of the steps with rising rate, then linear decay to 0 (sentence-transformers' examples)"""
    weight_decay: float = 0.0
    """of AdamW (sentence-transformers' default; BERT: 0.01)"""
    temperature: float = 0.05
    """divides the cosines (SimCSE, Gao et al. 2021; it is also the default scale of 20 in sentence-transformers; GISTEmbed
    and E5: 0.01)"""
    group_by_length: bool = True
    """pairs of one batch are of similar length, so that little is padding; crops are as they come"""
    bf16: bool = False
    """multiply in bfloat16 with the weights kept in fp32 (autocast): faster on GPUs"""
    window_words: int = 64
    """crops: both come from one window of this many words (Contriever: 256 tokens, for longer crops)"""
    crop_min_words: int = 3
    """crops: the shortest in words, about a title's length (Contriever: 5% of the window)"""
    crop_largest_share: float = 0.2
    """crops: the longest as a share of the window, so that it fits in train_seq_length (Contriever: 0.5)"""
    post_seed: int = 0
    """decides pairs, their order and dropout"""

    def __post_init__(self) -> None:
        """Refuse values that would train nothing or never end, and those that others leave without effect."""
        least_one = ("steps", "batch_size", "train_seq_length", "query_seq_length", "saved_seq_length", "mini_batch_size")
        for name in (*least_one, "window_words", "crop_min_words"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{flag(name)} must be at least 1, not {value}")
        if self.batch_size < 2:
            raise UserError("--batch-size must be at least 2: the other pairs of the batch are the negatives")
        if not (self.lr > 0 and self.temperature > 0 and self.epochs > 0):
            raise UserError("--lr, --temperature and --epochs must be above 0")
        if not (0 <= self.warmup_share <= 1 and 0 < self.crop_largest_share <= 1):
            raise UserError("--warmup-share and --crop-largest-share are shares: between 0 and 1")
        if self.weight_decay < 0 or self.guide_margin < 0:
            raise UserError("--weight-decay and --guide-margin must be at least 0")
        if self.steps is not None and self.epochs != 1:
            raise UserError("--epochs has no effect beside --steps: leave one of them out (--steps None trains by epochs)")
        self._check_lengths()
        self._check_loss()

    def _check_lengths(self) -> None:
        if self.query_seq_length is not None and self.query_seq_length > self.train_seq_length:
            raise UserError(
                f"--query-seq-length {self.query_seq_length} is above --train-seq-length {self.train_seq_length}, which cuts "
                "all texts: raise the latter"
            )

    def _check_loss(self) -> None:
        if self.loss not in CACHED and self.mini_batch_size is not None:
            raise UserError(f"--mini-batch-size is for cached losses and --loss is {self.loss}: choose {' or '.join(CACHED)}")
        for name in ("guide_margin", "guide_margin_strategy"):
            if self.loss not in GUIDED and name in self.changed():
                raise UserError(f"{flag(name)} is for guided losses and --loss is {self.loss}: choose {' or '.join(GUIDED)}")
        if any(width < 1 for width in self.matryoshka_dims) or len(set(self.matryoshka_dims)) < len(self.matryoshka_dims):
            raise UserError("--matryoshka-dims must be different widths of at least 1")

    def changed(self) -> set[str]:
        """Names of the fields that are not at their default."""
        return {field.name for field in fields(self) if getattr(self, field.name) != field.default}

    def check_source(self, crops: bool) -> None:
        """Refuse what makes no sense for crops of documents, or for given pairs. Raises `UserError`."""
        idle = [name for name in OF_CROPS if name in self.changed()]
        if not crops and idle:
            raise UserError(f"{flag(idle[0])} is for crops of a corpus (--corpus), and pairs are given: leave it out")
        if crops and self.steps is None:
            raise UserError("--steps is needed for crops of a corpus, which are drawn anew for ever: say how many")

    def check_guide(self, guide: object) -> None:
        """Refuse a guided loss without a guide, and a guide without one. Raises `UserError`."""
        if self.loss in GUIDED and guide is None:
            raise UserError(f"--loss {self.loss} needs --guide: a model that judges which negatives are false")
        if self.loss not in GUIDED and guide is not None:
            raise UserError(f"--guide has no effect with --loss {self.loss}: choose --loss {' or '.join(GUIDED)}")

    def check_negatives(self, count: int) -> None:
        """`count`: columns of hard negatives that the pairs have. Raises `UserError` for more than the loss takes."""
        if self.loss == "gist" and count > 1:
            raise UserError(
                f"--loss gist takes one hard negative a pair and the data has {count}: name the columns to use with "
                "--columns, or choose --loss cached-gist"
            )


# A model that is to be used: one pass over labelled pairs at the length of real passages, with the learning rate that is
# usual for base models. The loss is the cached one, so the batch fits in any memory; a larger one is better where time allows.
FULL = ContrastiveSettings(steps=None, loss="cached-mnrl", batch_size=128, train_seq_length=512, lr=2e-5)


def flag(name: str) -> str:
    """`--batch-size` for `batch_size`."""
    return f"--{name.replace('_', '-')}"


def check_widths(dims: Sequence[int], width: int) -> None:
    """Raise `UserError` unless `dims` are widths of a model whose vectors have `width` numbers, that one among them."""
    if not dims:
        return
    if max(dims) > width:
        raise UserError(f"--matryoshka-dims {max(dims)} is above the width of the model's vectors, which is {width}")
    if width not in dims:
        raise UserError(f"--matryoshka-dims lacks {width}, the model's full width, which would not be trained: add it")
