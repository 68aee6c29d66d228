"""How large the tasks from a corpus folder are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mecellem.errors import UserError


@dataclass(frozen=True, slots=True)
class CorpusTaskSettings:
    """Every field is part of a task's revision."""

    max_queries: int = 300
    """queries of a task at most"""
    max_documents: int = 600
    """candidates of a task at most; the queries' own documents are always among them"""
    min_queries: int = 30
    """a task with fewer is left out: its interval would be as wide as the scale"""
    task_seed: int = 0
    """decides which queries and candidates are kept"""
    split: Literal["test", "validation"] = "test"
    """of the corpus folder; what chooses a model is not what it is then judged by"""

    def __post_init__(self) -> None:
        """Refuse sizes that contradict each other."""
        if self.max_documents < self.max_queries:
            raise UserError(
                f"--max-documents {self.max_documents} must be at least --max-queries {self.max_queries}: "
                "every query's document is a candidate"
            )
        if not 2 <= self.min_queries <= self.max_queries:
            raise UserError("--min-queries must be at least 2 (an interval needs two) and at most --max-queries")
