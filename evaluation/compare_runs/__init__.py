"""Did a change of precision or layout change the training? Two runs on the same data, compared step by step."""

from evaluation.compare_runs.command import main

__all__ = ["main"]
