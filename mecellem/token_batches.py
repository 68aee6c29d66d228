"""Texts of alike length in one batch, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

CPU_TOKENS = 512  # a thread: its cache holds that much of a layer
GPU_TOKENS = 32_768


def tokens_a_batch(device: str) -> int:
    """Tokens of a batch, padding included, that encode fast on `device` ("cpu", "cuda", "cuda:1")."""
    if device != "cpu":
        return GPU_TOKENS
    import torch

    return CPU_TOKENS * torch.get_num_threads()


def token_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Positions of texts, longest first, in batches of at most `tokens` tokens with padding; a longer text is one alone.

    Within a batch lengths are as alike as they can be, so padding is rare; the largest batch comes first, so memory that
    is too small is known at once.
    """
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    start = 0
    while start < len(order):
        rows = max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows
