"""The sliding window: which tokens a model sees together, and which of them each window scores."""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """Inputs `[start, end)` of a sequence; the last `scored` of the tokens `[start + 1, end + 1)` that follow them count."""

    start: int
    end: int
    scored: int


def windows(targets: int, window: int, stride: int) -> list[Window]:
    """Windows over a sequence of `1 + targets` tokens: each but the first, which is only context, is scored exactly once.

    The first window scores all of its tokens; each further one scores the `stride` tokens that come next (the last
    perhaps fewer) and always holds `window` inputs. Token i thus has min(i, window) tokens of context where it is the
    last of a window, and at least `window - stride + 1` in any further window. With `stride` = `window` these are the
    windows of lm-evaluation-harness, with `stride` = 1 every token has all the context that fits.
    """
    assert 1 <= stride <= window
    if targets == 0:
        return []
    end = min(window, targets)
    found = [Window(0, end, end)]
    while end < targets:
        scored = min(stride, targets - end)
        end += scored
        found.append(Window(end - window, end, scored))
    return found
