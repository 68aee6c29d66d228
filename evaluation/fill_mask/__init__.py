"""Fill-mask: accuracy at 15% masking, word by word between tokenizers, pseudo-perplexity and a legal cloze."""

from evaluation.fill_mask.command import main

__all__ = ["main"]
