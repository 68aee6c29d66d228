"""Production efficiency, defined openly: quality against measured cost, several definitions side by side."""

from evaluation.efficiency.command import main

__all__ = ["main"]
