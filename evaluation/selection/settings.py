"""What the flags of `mecellem select` set. Imports nothing heavy, so that its help appears at once.

Recipe, masks and tasks are those of the commands that have them alone; fields that select decides itself are no flags here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from evaluation.fill_mask.settings import FillMaskSettings
from evaluation.perplexity.settings import DOMAIN_FIELD
from evaluation.tasks.settings import CorpusTaskSettings
from mecellem.errors import UserError
from post_training.contrastive.settings import GUIDED, ContrastiveSettings

BUDGET = 60  # optimiser steps of the post-training; what about 15 s on two cores allow for a model of 6 layers x 256


@dataclass(frozen=True, slots=True)
class SelectionMasks(FillMaskSettings):
    """How held-out text is masked: the masked tokens of `mecellem evaluate fill-mask` alone."""

    pll_sentences: Annotated[int, tyro.conf.Fixed, tyro.conf.Suppress] = 0
    cloze_items: Annotated[int, tyro.conf.Fixed, tyro.conf.Suppress] = 0
    cloze_ranking: Annotated[bool, tyro.conf.Fixed, tyro.conf.Suppress] = False
    domain_field: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = DOMAIN_FIELD


@dataclass(frozen=True, slots=True)
class SelectionTasks(CorpusTaskSettings):
    """How large the tasks from the corpus are."""

    split: Annotated[Literal["test", "validation"], tyro.conf.Fixed, tyro.conf.Suppress] = "validation"


@dataclass(frozen=True, slots=True)
class SelectionTraining(ContrastiveSettings):
    """The recipe that every checkpoint gets, as in `mecellem post-train contrastive`; how many steps of it, --budget says."""

    steps: Annotated[int | None, tyro.conf.Fixed, tyro.conf.Suppress] = BUDGET
    epochs: Annotated[float, tyro.conf.Fixed, tyro.conf.Suppress] = 1.0

    def __post_init__(self) -> None:
        """Refuse what needs a guide model, too."""
        ContrastiveSettings.__post_init__(self)
        if self.loss in GUIDED:
            raise UserError(f"--loss {self.loss} needs a guide model, which select has none: choose mnrl or cached-mnrl")


@dataclass(frozen=True, slots=True)
class SelectionSettings:
    """Everything that figures depend on besides the run, the corpus and the budget."""

    masking: SelectionMasks = field(default_factory=SelectionMasks)
    retrieval: SelectionTasks = field(default_factory=SelectionTasks)
    post_training: SelectionTraining = field(default_factory=SelectionTraining)
    max_seq_length: int = 128
    """tokens of a query or document that become its vector; the rest is cut"""
    sample_sentences: int = 12
    """filled masks to show"""
    random_seed: int = 0
    """draws the weights of the random baseline"""
