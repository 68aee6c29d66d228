"""How texts become vectors, where the model does not say it itself. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mecellem.errors import UserError

Pooling = Literal["auto", "mean", "cls", "lasttoken", "max"]


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """For transformers; of other models only model2vec's take `max_seq_length`.

    Every field except `batch_tokens` changes vectors, so all others are part of the key of cached results.
    """

    dtype: Literal["fp32", "bf16"] = "fp32"
    """of a transformer's weights and activations; vectors are fp32 in any case"""
    max_seq_length: int | None = None
    """tokens of a text that are read, the prompt's included; the model's own context length unless given"""
    pooling: Pooling = "auto"
    """of a transformer's token vectors; auto: as the model's folder says, else mean (of a causal model the last token)"""
    query_prompt: str | None = None
    """stands in front of a transformer's queries; the model's own unless given ("" for none)"""
    document_prompt: str | None = None
    """stands in front of a transformer's documents; the model's own unless given"""
    text_prompt: str | None = None
    """stands in front of texts that are neither (bitext, classification); the model's default prompt unless given"""
    batch_tokens: int = 0
    """tokens in a batch, padding included: memory and speed, not results; 0: 512 a thread on CPUs, 32,768 on GPUs"""

    def __post_init__(self) -> None:
        """Refuse sizes that leave no room for a text."""
        if self.max_seq_length is not None and self.max_seq_length < 3:
            raise UserError(f"--max-seq-length {self.max_seq_length} must be at least 3 (two tokens are special)")
        if self.batch_tokens < 0:
            raise UserError(f"--batch-tokens {self.batch_tokens} must be at least 0 (as fits the device)")
