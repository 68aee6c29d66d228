"""What the flags of `mecellem evaluate efficiency` set. Imports nothing heavy, so that its help appears at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mecellem.errors import UserError


@dataclass(frozen=True, slots=True)
class EfficiencySettings:
    """How costs are measured and points are drawn. Those of the first group are part of the key of cached measurements."""

    documents: int = 256
    """documents that are encoded for documents per second, chosen by hash"""
    queries: int = 100
    """single queries that are timed; a query is a document's title or, without one, its first words"""
    query_words: int = 12
    """words of a query that is cut from a document without a title"""
    warm_up: int = 10
    """queries before the first that is timed"""
    passes: int = 3
    """times that all documents are encoded; the median counts"""
    max_characters: int = 2000
    """characters that a document is cut to, the same for every system"""
    threads: int = 0
    """threads that torch computes with; 0: as many as it takes by itself"""
    seed: int = 0
    """decides which documents are used"""

    index_precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """how the vectors of an index are stored: 4, 2 or 1 bytes a number"""
    legal_tasks: tuple[str, ...] = ()
    """tasks of the leaderboard that `legal` is the mean of; the three of the group mecellem-legal unless given"""
    pareto_quality: Literal["mean", "retrieval", "legal"] = "mean"
    """the quality on the vertical axis of the plot"""

    def __post_init__(self) -> None:
        """Refuse counts that measure nothing."""
        for name in ("documents", "queries", "query_words", "passes", "max_characters"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be positive")
        for name in ("warm_up", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must not be negative")

    def measuring(self) -> dict[str, int]:
        """What a measurement depends on."""
        names = ("documents", "queries", "query_words", "warm_up", "passes", "max_characters", "threads", "seed")
        return {name: getattr(self, name) for name in names}
