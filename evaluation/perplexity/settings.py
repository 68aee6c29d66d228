"""What the flags of `mecellem evaluate perplexity` set. Imports nothing heavy, so that its help appears at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mecellem.errors import UserError

DOMAIN_FIELD = "source"  # what the corpora of this project have


@dataclass(frozen=True, slots=True)
class PerplexitySettings:
    """How documents are read and scored. Every field but `batch_tokens` is part of the key of cached results."""

    window: int = 1024
    """tokens that the model sees at most"""
    stride: int = 512
    """new tokens scored in each further window, with at least window - stride tokens in front; at most the window"""
    domain_field: str = DOMAIN_FIELD
    """the field of a record that names its sub-domain; a record without it belongs to one named after its file (all
    of them only by default)"""
    max_documents: int = 0
    """documents of a sub-domain, chosen by hash; 0: all"""
    max_characters: int = 0
    """characters that a document is cut to, the same for every model; 0: whole documents"""
    seed: int = 0
    """decides which documents are kept, and the bootstrap"""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """type that models compute in; in fp32 a checkpoint and its export agree to 1e-4"""
    batch_tokens: int = 4096
    """tokens in a batch, padding included: memory, not results"""

    def __post_init__(self) -> None:
        """Refuse sizes that contradict each other."""
        if not 1 <= self.stride <= self.window:
            raise UserError(f"--stride {self.stride} must be at least 1 and at most --window {self.window}")
        for name in ("max_documents", "max_characters"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must not be negative (0: no limit)")
        if self.batch_tokens < 1:
            raise UserError(f"--batch-tokens {self.batch_tokens} must be positive")
        if not self.domain_field:
            raise UserError("--domain-field must name a field of the records")
