"""`mecellem select`: which checkpoint of a run to keep, by what it retrieves after the same short post-training."""

from evaluation.selection.command import main

__all__ = ["main"]
