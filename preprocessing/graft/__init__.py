"""`mecellem tokenizer graft`: a teacher's tokenizer, regrown towards other languages at an exact size."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem tokenizer graft` and run it."""
    from mecellem.flags import parse_and_call
    from preprocessing.graft.command import graft

    parse_and_call(graft, argv, prog="mecellem tokenizer graft")
    return 0
