"""`mecellem evaluate`: any models on any mteb tasks beside BM25, every part computed once, in one table."""

from evaluation.leaderboard.command import main, main_retrieval

__all__ = ["main", "main_retrieval"]
