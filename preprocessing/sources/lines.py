"""Lines of a file in bounded memory: a line that is too long is measured, not held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SAMPLE = 1 << 12  # bytes of a broken record that quarantine keeps


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line that was longer than allowed: its length in bytes and its beginning."""

    length: int
    sample: bytes


def split_lines(pieces: Iterable[bytes], longest: int) -> Iterator[bytes | LongLine]:
    """Yield lines without their ends; what follows the last newline is a line too. At most `longest` bytes are held."""
    parts: list[bytes] = []
    held = 0
    over: tuple[int, bytes] | None = None  # length so far and sample of a line that is already too long
    for piece in pieces:
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            part = piece[start:end]
            if over:
                yield LongLine(over[0] + len(part), over[1])
            elif held + len(part) > longest:
                yield LongLine(held + len(part), b"".join((*parts, part))[:SAMPLE])
            else:
                yield b"".join((*parts, part)) if parts else part
            parts, held, over, start = [], 0, None, end + 1
        rest = piece[start:] if start else piece
        if over:
            over = (over[0] + len(rest), over[1])
        elif held + len(rest) > longest:
            over, parts = (held + len(rest), b"".join((*parts, rest))[:SAMPLE]), []
        elif rest:
            parts.append(rest)
            held += len(rest)
    if over:
        yield LongLine(*over)
    elif parts:
        yield b"".join(parts)
