"""What the flags of `mecellem select` set. Imports nothing heavy, so that its help appears at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from mecellem.errors import UserError
from post_training.contrastive import ContrastiveSettings


@dataclass(frozen=True, slots=True)
class FillMaskSettings:
    """How held-out text is masked. Every field is part of the key of cached results."""

    mask_probability: float = 0.15
    """share of tokens that are asked for (the paper's evaluation)"""
    mask_documents: int = 300
    """documents, in equal parts from every source where there are enough, chosen by hash"""
    mask_length: int = 256
    """tokens a document is cut to, special tokens included"""
    mask_seed: int = 0
    """decides documents and masks"""
    mask_batch_tokens: int = 8192
    """tokens in a batch, padding included: memory, not results"""

    def __post_init__(self) -> None:
        """Refuse values that would ask for nothing."""
        if not 0 < self.mask_probability <= 1:
            raise UserError(f"--mask-probability {self.mask_probability} must be above 0 and at most 1")
        if self.mask_documents < 1 or self.mask_length < 3:
            raise UserError("--mask-documents must be at least 1 and --mask-length at least 3 (two tokens are special)")


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """How large tasks are. Every field is part of the key of cached results."""

    max_queries: int = 300
    """queries of a task at most"""
    max_documents: int = 600
    """candidates of a task at most; the queries' own documents are always among them"""
    min_queries: int = 30
    """a task with fewer is left out: its interval would be as wide as the scale"""
    task_seed: int = 0
    """decides which queries and candidates are kept"""

    def __post_init__(self) -> None:
        """Refuse sizes that contradict each other."""
        if self.max_documents < self.max_queries:
            raise UserError(
                f"--max-documents {self.max_documents} must be at least --max-queries {self.max_queries}: "
                "every query's document is a candidate"
            )
        if not 2 <= self.min_queries <= self.max_queries:
            raise UserError("--min-queries must be at least 2 (an interval needs two) and at most --max-queries")


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """Everything that figures depend on besides the model and the corpus."""

    masking: FillMaskSettings = field(default_factory=FillMaskSettings)
    retrieval: TaskSettings = field(default_factory=TaskSettings)
    post_training: ContrastiveSettings = field(default_factory=ContrastiveSettings)
    max_seq_length: int = 128
    """tokens of a query or document that become its vector; the rest is cut"""
    sample_sentences: int = 12
    """filled masks to show"""
    random_seed: int = 0
    """draws the weights of the random baseline"""
