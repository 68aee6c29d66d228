"""Read .jsonl, .jsonl.gz and .jsonl.zst, a line or a block of lines at a time; every error names the file and the line."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from mecellem.errors import UserError
from mecellem.files import sha256_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 1 << 20
_ZSTD_BLOCK = 1 << 16  # zstandard gives all that its input holds at once: text that repeats itself grows a thousandfold
UNKNOWN_LICENCE = "unknown"
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@dataclass(frozen=True, slots=True)
class Record:
    """One document. A line without `source` is named by its file, one without `licence` has the licence "unknown"."""

    text: str
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Whole lines of one file, `data` as they stand there; the first has the number `first_line` (from 1)."""

    path: Path
    first_line: int
    data: bytes


def check_inputs(paths: Sequence[Path], flag: str) -> None:
    """Raise `UserError` unless every path is a readable file of a known kind. `flag` names the flag in the message."""
    if not paths:
        raise UserError(f"{flag} names no file: give one or more .jsonl, .jsonl.gz or .jsonl.zst")
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}, given by {flag}, is not a file: check the path")
        _kind(path)
        try:
            with open(path, "rb"):
                pass
        except PermissionError:
            raise UserError(f"{path}, given by {flag}, may not be read: check its permissions") from None


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the files' own SHA-256s, in order: what the input is, wherever it lies."""
    return joint_fingerprint(sha256_of(path) for path in paths)


def joint_fingerprint(hashes: Iterable[str]) -> str:
    """The fingerprint of files whose SHA-256s, in hexadecimal, are known."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def read_fields(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, fields) of one file; `progress` is told how many of the file's bytes each block took.

    Blank lines are skipped. Raises `UserError` for text that is not UTF-8, a line that is not JSON, a record without
    a string `text`, and for a compressed file that is cut or broken.
    """
    for number, line in enumerate(_lines(path, lambda raw: progress(len(raw))), start=1):
        if line.strip():
            yield number, _fields(path, number, line)


def read_records(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[Record]:
    """Yield what tokenizing needs of the documents of one file; `progress` and errors as in `read_fields`."""
    for number, fields in read_fields(path, progress):
        yield _record(path, number, fields)


def read_line_blocks(path: Path, size: int, seen: Callable[[bytes], None] = lambda _: None) -> Iterator[LineBlock]:
    """Yield a file's lines in blocks of about `size` bytes, or of one line where that is longer.

    `seen` is given the file's own bytes, compressed ones as they are, in order: for a hash, for progress. Raises
    `UserError` for a compressed file that is cut or broken; the lines are not looked at.
    """
    parts: list[bytes] = []
    gathered, line = 0, 1
    for piece in _kind(path)(path, seen):
        gathered += len(piece)
        cut = piece.rfind(b"\n") + 1 if gathered >= size else 0
        if not cut:
            parts.append(piece)
            continue
        block = LineBlock(path, line, b"".join((*parts, piece[:cut])))
        parts, gathered = [piece[cut:]], len(piece) - cut
        line += block.data.count(b"\n")
        yield block
    if last := b"".join(parts):
        yield LineBlock(path, line, last)


def records_of(block: LineBlock) -> Iterator[Record]:
    """The documents of a block, line by line; errors as in `read_fields`."""
    for number, line in enumerate(block.data.split(b"\n"), start=block.first_line):
        if line.strip():
            yield _record(block.path, number, _fields(block.path, number, line))


def _record(path: Path, number: int, fields: dict[str, Any]) -> Record:
    source = optional_string(path, number, fields, "source", path.name)
    return Record(fields["text"], source, optional_string(path, number, fields, "licence", UNKNOWN_LICENCE))


def optional_string(path: Path, number: int, fields: dict[str, Any], key: str, default: str) -> str:
    """A record's string; `default` where it is missing or null. Raises `UserError` for a value of another type."""
    value = fields.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise UserError(f'{path}, line {number}: "{key}" must be a string, not {json_type(value)}')
    return value


def _fields(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as decoding:
            raise UserError(
                f"{path}, line {number}: not UTF-8 (byte {decoding.start} of the line): convert the file to UTF-8"
            ) from None
        raise UserError(f"{path}, line {number}: not JSON ({error}): repair or remove the line") from None
    if not isinstance(fields, dict):
        raise UserError(f'{path}, line {number}: a JSON object like {{"text": "..."}} is needed, not {json_type(fields)}')
    if "text" not in fields:
        raise UserError(f'{path}, line {number}: the record has no "text": each line needs one')
    if not isinstance(fields["text"], str):
        raise UserError(f'{path}, line {number}: "text" must be a string, not {json_type(fields["text"])}')
    return fields


def json_type(value: object) -> str:
    """What JSON calls the type of a value, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


_Seen = Callable[[bytes], None]  # is given every piece of the file's own bytes, once, in order


def _lines(path: Path, seen: _Seen) -> Iterator[bytes]:
    rest: list[bytes] = []
    for block in _kind(path)(path, seen):
        *whole, tail = block.split(b"\n")
        if whole:
            yield b"".join((*rest, whole[0]))
            yield from whole[1:]
            rest = []
        rest.append(tail)
    if last := b"".join(rest):
        yield last


def _kind(path: Path) -> Callable[[Path, _Seen], Iterator[bytes]]:
    """How to read a file, by its name's end."""
    readers = (_plain_blocks, _gzip_blocks, _zstd_blocks)
    for suffix, reader in zip(SUFFIXES, readers, strict=True):
        if path.name.endswith(suffix):
            return reader
    raise UserError(f"{path}: a name that ends in .jsonl, .jsonl.gz or .jsonl.zst is needed, one JSON object a line")


def _plain_blocks(path: Path, seen: _Seen) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as handle:
        while block := handle.read(_BLOCK):
            seen(block)
            yield block


class _Watched(io.RawIOBase):
    """A file that shows what is read from it to `seen`."""

    def __init__(self, handle: IO[bytes], seen: _Seen) -> None:
        self._handle = handle
        self._seen = seen

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        block = self._handle.read(len(memoryview(buffer)))
        memoryview(buffer)[: len(block)] = block
        self._seen(block)
        return len(block)


def _gzip_blocks(path: Path, seen: _Seen) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as raw:
        watched = io.BufferedReader(_Watched(raw, seen), _BLOCK)
        with gzip.GzipFile(fileobj=watched) as handle:
            try:
                while block := handle.read(_BLOCK):
                    yield block
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise _broken(path, error) from None


def _zstd_blocks(path: Path, seen: _Seen) -> Iterator[bytes]:
    import zstandard

    # zstandard's own stream reader takes a cut file for a whole one, so the end of each frame is watched here.
    frame = None
    with open(path, "rb") as handle:
        while compressed := handle.read(min(_ZSTD_BLOCK, _BLOCK)):
            seen(compressed)
            while compressed:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    block = frame.decompress(compressed)
                except zstandard.ZstdError as error:
                    raise _broken(path, error) from None
                compressed = b""
                if frame.eof:
                    compressed, frame = frame.unused_data, None
                for start in range(0, len(block), _BLOCK):
                    yield block[start : start + _BLOCK]
    if frame is not None:
        raise _broken(path, "it ends inside a frame")


def _broken(path: Path, why: object) -> UserError:
    return UserError(f"{path}: the compressed file is cut or broken ({why}): copy or download it again")
