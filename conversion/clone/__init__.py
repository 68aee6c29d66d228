"""`mecellem convert clone`: a teacher's model onto a new vocabulary; only what has a row for every entry changes."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> None:
    """Entry point of `mecellem convert clone`."""
    from conversion.clone.command import clone
    from mecellem.flags import parse_and_call

    parse_and_call(clone, argv, "mecellem convert clone")
