"""Reward-style judgement of what causal language models write, axis by axis, one model against another."""

from evaluation.reward.command import main

__all__ = ["main"]
