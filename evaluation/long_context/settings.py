"""What the flags of `mecellem evaluate long-context` set. Imports nothing heavy, so that its help appears at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evaluation.perplexity.settings import DOMAIN_FIELD
from mecellem.errors import UserError


@dataclass(frozen=True, slots=True)
class LongContextSettings:
    """What is measured. Every field but `mask_batch_tokens` is part of the key of cached results."""

    role: Literal["auto", "encoder", "masked-lm"] = "auto"
    """how models are measured; auto: folders of a masked language model as such, all others as encoders"""
    lengths: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    """tokens of a document, in each model's own tokens; those beyond a model's context are marked, never cut"""
    depths: tuple[float, ...] = (0, 25, 50, 75, 100)
    """where the needle stands: per cent of the document in front of it"""
    candidates: int = 16
    """documents that a query has to choose from, each with another needle; fewer where the texts have no more"""
    rounds: int = 1
    """how often documents and needles are paired anew; needs so many times as many needles"""
    documents: int = 8
    """windows of real documents for the curves by position, at most"""
    pieces: int = 8
    """equal parts of a document whose similarity to the whole is measured; the document is read in as many orders of them"""
    mask_probability: float = 0.15
    """share of tokens that a masked language model is asked for"""
    domain_field: str = DOMAIN_FIELD
    """the field of a record that names its domain"""
    seed: int = 0
    """decides documents, needles, masks and the bootstrap"""
    mask_batch_tokens: int = 2048
    """tokens in a batch of a masked language model: memory, not results"""

    def __post_init__(self) -> None:
        """Refuse values that contradict each other."""
        if not self.lengths or min(self.lengths) < 64 or list(self.lengths) != sorted(set(self.lengths)):
            raise UserError(f"--lengths {self._words('lengths')} must rise, each at least 64")
        if (
            not self.depths
            or list(self.depths) != sorted(set(self.depths))
            or not 0 <= min(self.depths) <= max(self.depths) <= 100
        ):
            raise UserError(f"--depths {self._words('depths')} must rise, from 0 to 100 per cent at most")
        for name, least in (("candidates", 2), ("rounds", 1), ("documents", 2), ("pieces", 2), ("mask_batch_tokens", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least {least}")
        if not 0 < self.mask_probability < 1:
            raise UserError(f"--mask-probability {self.mask_probability} must be above 0 and below 1")

    def _words(self, name: str) -> str:
        return " ".join(f"{value:g}" for value in getattr(self, name))
