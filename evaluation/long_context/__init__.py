"""What a long context is worth: needles in real documents, a vector's bias to places, masked tokens by position."""

from evaluation.long_context.command import main

__all__ = ["main"]
