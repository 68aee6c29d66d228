"""The bytes of a file, decompressed, a block at a time: everything around the damage of a broken file is given.

`preprocessing.jsonl` refuses a broken file as a whole, which is right for the tokenizer's input; Python's gzip drops what
it has read of a block when the next byte is wrong, and what comes behind it. Raw dumps need neither: reading goes on at the
next member of a gzip file or frame of a zstd file, where there is one.

A checksum stands at the end of a member or frame. So what is decoded of a damaged one before the damage shows is given
although no checksum confirms it: mostly it is right, and to hold a member of any size back until its end would need its
size in memory, or to decode it twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20
_STEP = 1 << 12  # compressed bytes at a time: what zstandard had decoded of a step is lost when the step is broken
_TRIAL = 1 << 16  # compressed bytes that must decode before a place is believed to be the beginning of a member
_MEMBER, _FRAME = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"  # RFC 1952, 2.3.1; RFC 8878, 3.1.1


class DamagedError(Exception):
    """A file is cut or broken; all that could be decompressed before was given. At byte `resume` it is whole again."""

    def __init__(self, message: str, resume: int | None = None) -> None:
        super().__init__(message)
        self.resume = resume


class Stretch:
    """The content of a file up to its next damage, which ends it and is noted, so that a consumer finishes what it has.

    After the iteration `damage` is None or says what is broken, `cut` is whether the last line has no end, which damage may
    have cut off, and `resume` the byte where the next stretch begins, if there is one. `resumed`: this is not the first.
    """

    def __init__(self, pieces: Iterator[bytes], resumed: bool = False) -> None:
        self._pieces = pieces
        self.resumed = resumed
        self.damage: str | None = None
        self.resume: int | None = None
        self.cut = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._pieces:
                self.cut = not piece.endswith(b"\n")
                yield piece
        except DamagedError as error:
            self.resume = error.resume
            self.damage = str(error)


def stretches(path: Path, start: int = 0, end: int | None = None) -> Iterator[Stretch]:
    """The whole stretches of a file, one where nothing is damaged; each is to be read to its end before the next is asked for.

    `start` and `end` as for `blocks`. Raises `OSError`.
    """
    return _stretches(blocks(path, start, end), lambda resume: _decompressed(path, resume))


def gzip_stretches(path: Path) -> Iterator[Stretch]:
    """The stretches of a gzip file, whatever its name."""
    return _stretches(_gzip(path, 0), lambda resume: _gzip(path, resume))


def plain_stretch(path: Path) -> Iterator[Stretch]:
    """A file as it stands, whatever its name."""
    yield Stretch(_plain(path, 0, None))


def _stretches(pieces: Iterator[bytes], go_on: Callable[[int], Iterator[bytes]]) -> Iterator[Stretch]:
    stretch = Stretch(pieces)
    yield stretch
    while stretch.resume is not None:
        stretch = Stretch(go_on(stretch.resume), resumed=True)
        yield stretch


def blocks(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the content of a file by its name's end (.gz, .zst, else as it is), never more than 1 MiB at a time.

    `start` and `end` are bytes of a file that is not compressed. Raises `DamagedError` and `OSError`.
    """
    if is_compressed(path):
        assert start == 0 and end is None, path
        yield from _decompressed(path, 0)
    else:
        yield from _plain(path, start, end)


def _decompressed(path: Path, start: int) -> Iterator[bytes]:
    return (_gzip if path.name.endswith(".gz") else _zstd)(path, start)


def is_gzip(path: Path) -> bool:
    """Whether the file begins as a gzip file does."""
    with open(path, "rb") as handle:
        return handle.read(len(_MEMBER)) == _MEMBER


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


def _gzip(path: Path, start: int) -> Iterator[bytes]:
    """The members from byte `start` on."""
    with open(path, "rb") as handle:
        handle.seek(start)
        member, fresh, given, begin = zlib.decompressobj(wbits=31), True, False, start
        data = handle.read(_STEP)
        while data:
            try:
                block = member.decompress(data, _BLOCK)
            except zlib.error as error:
                raise _damage(str(error), handle, begin, given, _MEMBER, _is_member) from None
            fresh, given = False, given or bool(block)
            if block:
                yield block
            if member.eof:
                data = member.unused_data.lstrip(b"\0")
                member, fresh, given, begin = zlib.decompressobj(wbits=31), True, False, handle.tell() - len(data)
            else:
                data = member.unconsumed_tail
            data = data or handle.read(_STEP)
        if not fresh:
            raise _damage("it ends inside a member", handle, begin, given, _MEMBER, _is_member)


def _zstd(path: Path, start: int) -> Iterator[bytes]:
    """The frames from byte `start` on."""
    import zstandard

    with open(path, "rb") as handle:
        handle.seek(start)
        frame, given, begin = None, False, start
        while data := handle.read(_STEP):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    content = frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise _damage(str(error), handle, begin, given, _FRAME, _is_frame) from None
                data, given = b"", given or bool(content)
                if frame.eof:
                    data, frame, given = frame.unused_data, None, False
                    begin = handle.tell() - len(data)
                for at in range(0, len(content), _BLOCK):
                    yield content[at : at + _BLOCK]
        if frame is not None:
            raise _damage("it ends inside a frame", handle, begin, given, _FRAME, _is_frame)


def _damage(
    message: str, handle: BinaryIO, begin: int, given: bool, magic: bytes, is_start: Callable[[bytes], bool]
) -> DamagedError:
    """The error for a member that begins at byte `begin`: with the beginning of a later one, if the file has any.

    `given`: some of the member's content was given already.
    """
    kept = "; what was decoded from the damaged part before is kept, though no checksum confirms it" if given else ""
    resume = _find(handle, begin + 1, magic, is_start)
    if resume is None:
        return DamagedError(f"{message}; the file was read up to here{kept}")
    return DamagedError(
        f"{message}; what is damaged lies between bytes {begin:,} and {resume:,} of the file, reading went on behind it, and "
        f"numbers of lines and records from here on count only what could be read{kept}",
        resume,
    )


def _find(handle: BinaryIO, start: int, magic: bytes, is_start: Callable[[bytes], bool]) -> int | None:
    """The first byte at or behind `start` where `magic` stands and what follows decodes."""
    carried, position = b"", start
    handle.seek(start)
    while piece := handle.read(_BLOCK):
        window, at = carried + piece, -1
        while (at := window.find(magic, at + 1)) >= 0:
            place = position - len(carried) + at
            handle.seek(place)
            if is_start(handle.read(_TRIAL)):
                return place
        position += len(piece)
        carried = window[-len(magic) + 1 :]
        handle.seek(position)
    return None


def _is_member(data: bytes) -> bool:
    if len(data) < 10 or data[3] & 0xE0:  # reserved flags
        return False
    try:
        member = zlib.decompressobj(wbits=31)
        return bool(member.decompress(data, _BLOCK)) or member.eof
    except zlib.error:
        return False


def _is_frame(data: bytes) -> bool:
    import zstandard

    try:
        frame = zstandard.ZstdDecompressor().decompressobj()
        return bool(frame.decompress(data)) or frame.eof or len(data) == _TRIAL
    except zstandard.ZstdError:
        return False
