"""What the flags of `mecellem evaluate fill-mask` set. Imports nothing heavy, so that its help appears at once."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.perplexity.settings import DOMAIN_FIELD
from mecellem.errors import UserError


@dataclass(frozen=True, slots=True)
class FillMaskSettings:
    """How held-out text is masked. Every field but `mask_batch_tokens` is part of the key of cached results."""

    mask_probability: float = 0.15
    """share of tokens, and of words, that are asked for (the paper's evaluation)"""
    mask_documents: int = 300
    """documents, in equal parts from every domain where there are enough, chosen by hash"""
    mask_words: int = 128
    """words a document is cut to, the same text for every model; cut further where a model's context is shorter"""
    mask_seed: int = 0
    """decides documents, masks, and the bootstrap"""
    pll_sentences: int = 100
    """sentences of the pseudo-perplexity, one a document; each token costs a row of its sentence; 0: none"""
    cloze_items: int = 200
    """built-in legal cloze items, made from the texts; 0: none"""
    cloze_ranking: bool = False
    """also rank each cloze answer among all candidates: about 100 times the work of the open question"""
    domain_field: str = DOMAIN_FIELD
    """the field of a record that names its domain; a record without it belongs to one named after its file"""
    baseline_characters: int = 20_000_000
    """characters of the training text that the unigram baseline counts, from its beginning"""
    mask_batch_tokens: int = 2048
    """tokens in a batch, padding included: memory and speed, not results (on CPUs small batches stay in the cache)"""

    def __post_init__(self) -> None:
        """Refuse values that would ask for nothing."""
        if not 0 < self.mask_probability <= 1:
            raise UserError(f"--mask-probability {self.mask_probability} must be above 0 and at most 1")
        for name in ("mask_documents", "mask_words", "mask_batch_tokens", "baseline_characters"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")
        for name in ("pll_sentences", "cloze_items"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must not be negative (0: none)")
        if not self.domain_field:
            raise UserError("--domain-field must name a field of the records")
