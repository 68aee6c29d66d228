"""Fill-mask: accuracy at 15% masking, word by word between tokenizers, pseudo-perplexity and a legal cloze."""

from evaluation.masked.command import main

__all__ = ["main"]
