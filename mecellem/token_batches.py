"""Texts of alike length in one batch, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


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
