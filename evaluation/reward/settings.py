"""What the flags of `mecellem evaluate reward` set. Imports nothing heavy, so that its help appears at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mecellem.errors import UserError


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How models continue the prompts. Every field is part of the key of cached continuations.

    The batch is one too: sampling draws for a whole batch at once, and padding moves the last bits of floating-point sums.
    """

    max_new_tokens: int = 256
    """tokens of a continuation at most"""
    temperature: float = 0.0
    """0: the most probable token each time; above 0: sampled at this temperature"""
    top_p: float = 1.0
    """sample from the most probable tokens that have this much probability together; 1: all"""
    generation_batch: int = 8
    """prompts that are continued together"""
    chat: bool = False
    """wrap prompts in the chat template of the model that continues them; otherwise it sees the prompt alone"""
    model_dtype: Literal["fp32", "bf16"] = "fp32"
    """type that the models compute in"""
    seed: int = 0
    """decides what is sampled, and the bootstrap"""

    def __post_init__(self) -> None:
        """Refuse sizes that give no text."""
        for name in ("max_new_tokens", "generation_batch"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be positive")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature {self.temperature} must be 0 (greedy) or above")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p} must be above 0 and at most 1")
        if self.temperature == 0 and self.top_p != 1:
            raise UserError(f"--top-p {self.top_p} has no effect without sampling: set --temperature too")


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How continuations are scored. `judge_tokens` is memory and speed only; the others are part of the cache's key."""

    axes: tuple[str, ...] = ()
    """names of the judge's axes in the order of its head, where its config.json does not name them"""
    axis_scores: Literal["raw", "debiased"] = "raw"
    """scores of the axes as the head gives them, or after the judge's own debiasing matrix (ArmoRM's layout only); its
    overall score always uses the matrix"""
    judge_dtype: Literal["fp32", "bf16"] = "fp32"
    """type that the judge's backbone computes in; its head is fp32"""
    judge_length: int = 4096
    """tokens of prompt and continuation that the judge reads, at most its own limit; continuations that are longer are cut"""
    judge_tokens: int = 8192
    """tokens in a batch of the judge, padding included"""

    def __post_init__(self) -> None:
        """Refuse names and sizes that cannot be."""
        if len(set(self.axes)) < len(self.axes) or not all(name.strip() for name in self.axes):
            raise UserError(f"--axes {' '.join(self.axes)}: every axis needs a name of its own")
        for name in ("judge_length", "judge_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be positive")
