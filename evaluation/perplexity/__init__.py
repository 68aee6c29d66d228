"""Perplexity and bits per byte of causal language models on fixed documents, before and after, per sub-domain."""

from evaluation.perplexity.command import main

__all__ = ["main"]
