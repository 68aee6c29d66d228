"""The bytes of a file, decompressed, a block at a time: everything before the damage of a broken file is given.

`preprocessing.jsonl` refuses a broken file as a whole, which is right for the tokenizer's input; Python's gzip drops what
it has read of a block when the next byte is wrong. Raw dumps need neither.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20
_STEP = 1 << 12  # compressed bytes at a time: what zstandard had decoded of a step is lost when the step is broken


class DamagedError(Exception):
    """A compressed file is cut or broken; all that could be decompressed was given before."""


def blocks(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the content of a file by its name's end (.gz, .zst, else as it is), never more than 1 MiB at a time.

    `start` and `end` are bytes of a file that is not compressed. Raises `DamagedError` and `OSError`.
    """
    if path.name.endswith((".gz", ".zst")):
        assert start == 0 and end is None, path
        yield from (_gzip if path.name.endswith(".gz") else _zstd)(path)
    else:
        yield from _plain(path, start, end)


def is_compressed(path: Path) -> bool:
    """Whether the file can only be read from its beginning."""
    return path.name.endswith((".gz", ".zst"))


def _plain(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as handle:
        handle.seek(start)
        left = end - start if end is not None else None
        while block := handle.read(_BLOCK if left is None else min(_BLOCK, left)):
            left = None if left is None else left - len(block)
            yield block
    if left:
        raise DamagedError(f"it ends {left:,} bytes early: it was changed after the run was planned")


def _gzip(path: Path) -> Iterator[bytes]:
    member, fresh = zlib.decompressobj(wbits=31), True
    with open(path, "rb") as handle:
        data = handle.read(_STEP)
        while data:
            try:
                block = member.decompress(data, _BLOCK)
            except zlib.error as error:
                raise DamagedError(str(error)) from None
            fresh = False
            if block:
                yield block
            if member.eof:
                data, member, fresh = member.unused_data.lstrip(b"\0"), zlib.decompressobj(wbits=31), True
            else:
                data = member.unconsumed_tail
            data = data or handle.read(_STEP)
    if not fresh:
        raise DamagedError("it ends inside a member")


def _zstd(path: Path) -> Iterator[bytes]:
    import zstandard

    frame = None
    with open(path, "rb") as handle:
        while data := handle.read(_STEP):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    content = frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise DamagedError(str(error)) from None
                data = b""
                if frame.eof:
                    data, frame = frame.unused_data, None
                for at in range(0, len(content), _BLOCK):
                    yield content[at : at + _BLOCK]
    if frame is not None:
        raise DamagedError("it ends inside a frame")
