"""How hard negatives are chosen, and which of them are taken for false ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mecellem.errors import UserError


@dataclass(frozen=True, slots=True)
class MiningSettings:
    """The recipe; by default NV-Retriever's TopK-PercPos (Moreira et al. 2024), the best of those that they compare."""

    negatives: int = 3
    """hard negatives a pair, one line of the result each (sentence-transformers' default)"""
    relative_margin: float | None = 0.05
    """a candidate nearer to the query than the positive's score less this share of it counts as another positive
    (NV-Retriever: 0.05)"""
    absolute_margin: float | None = None
    """the same as a difference of scores, instead of or beside the share"""
    max_score: float | None = None
    """a candidate above this score counts as another positive, whatever the positive's own"""
    range_min: int = 0
    """nearest candidates to skip (sentence-transformers' example: 10; with a margin none need be)"""
    range_max: int | None = None
    """nearest candidates to look at; None: as many as the margins are likely to need"""
    sampling: Literal["top", "random"] = "top"
    """the nearest of those that are left, or any of them"""
    batch_size: int = 32
    """texts encoded at a time: memory and speed, not results"""
    mining_seed: int = 0
    """decides a random choice"""

    def __post_init__(self) -> None:
        """Refuse values that would find nothing, or take every positive for a negative."""
        if self.negatives < 1 or self.batch_size < 1:
            raise UserError("--negatives and --batch-size must be at least 1")
        for name in ("relative_margin", "absolute_margin"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"--{name.replace('_', '-')} must be at least 0")
        if self.range_min < 0 or (self.range_max is not None and self.range_max < self.range_min + self.negatives):
            raise UserError("--range-min must be at least 0, and --range-max must leave --negatives candidates after it")
        if self.relative_margin is None and self.absolute_margin is None and self.max_score is None and not self.range_min:
            raise UserError(
                "without --relative-margin, --absolute-margin, --max-score and --range-min the nearest texts are taken, which "
                "often answer the query too: set one of them"
            )
        if self.sampling == "top" and self.mining_seed:
            raise UserError("--mining-seed has no effect with --sampling top: leave it out, or choose random")
