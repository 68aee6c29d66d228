"""Megatron's `.bin/.idx` pair, written in bounded memory: token ids end to end, and where each document lies.

`.idx`: 9 bytes of magic; version 1 (u64); code of the ids' type (u8: 4 = int32, 8 = uint16); number of sequences (u64);
number of document bounds (u64); then the sequences' lengths (int32), their byte offsets in the `.bin` (int64) and the
document bounds (int64, the first is 0), all little-endian. Each document is one sequence here, as `preprocess_data.py`
of Megatron-LM writes it, and a document without tokens is, as there, a bound that repeats the one before: it has no
sequence.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mecellem.errors import UserError
from mecellem.manifest import FileEntry

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES: dict[int, np.dtype[Any]] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_CHUNK = 1 << 16  # documents at a time while the .idx is written
_LONGEST = 2**31 - 1


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 below 65,500 entries, else int32: the rule of megatron.core's `DType.optimal_dtype`."""
    return _DTYPES[8] if vocab_size < 65_500 else _DTYPES[4]


class IndexedWriter:
    """Writes batches of documents to the streams of a `.bin` and an `.idx`.

    `spool` is an empty file for the documents' lengths, which are read again when the `.idx` is written.
    """

    def __init__(self, stream: IO[bytes], index: IO[bytes], spool: IO[bytes], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.documents = 0
        self.sequences = 0
        self.tokens = 0
        self._stream = stream
        self._index = index
        self._spool = spool
        self._digest = hashlib.sha256()

    def add(self, ids: NDArray[Any], lengths: NDArray[Any]) -> None:
        """Append documents: `ids` (tokens,) end to end, `lengths` (documents,) in tokens, 0 for an empty document."""
        assert ids.ndim == lengths.ndim == 1 and int(lengths.sum()) == ids.size, (ids.shape, lengths.shape)
        check_lengths(lengths, self.documents)
        data = np.ascontiguousarray(ids, self.dtype).view(np.uint8).data
        self._stream.write(data)
        self._digest.update(data)
        self._spool.write(np.ascontiguousarray(lengths, "<i4").tobytes())
        self.documents += lengths.size
        self.sequences += int(np.count_nonzero(lengths))
        self.tokens += ids.size

    def finish(self) -> tuple[FileEntry, FileEntry]:
        """Write the whole `.idx`, in bounded memory; returns what the manifest says of `.bin` and `.idx`."""
        entry = FileEntry(bytes=self.tokens * self.dtype.itemsize, sha256=self._digest.hexdigest())
        return entry, write_index(self._index, self.dtype, self.sequences, self.documents, self._spooled_lengths)

    def _spooled_lengths(self) -> Iterator[NDArray[np.int32]]:
        self._spool.flush()
        self._spool.seek(0)
        while block := self._spool.read(4 * _CHUNK):
            yield np.frombuffer(block, "<i4")


def check_lengths(lengths: NDArray[Any], first: int) -> None:
    """Raise `UserError` for a document of 2^31 tokens or more: Megatron's `.idx` has 32 bits for it.

    `first` is the number of the first document.
    """
    if lengths.size and int(lengths.max()) > _LONGEST:
        number = first + int(np.argmax(lengths))
        raise UserError(
            f"document {number:,} has {int(lengths.max()):,} tokens, a .bin/.idx holds documents of at most {_LONGEST:,}: "
            "divide it into several lines"
        )


def write_index(
    out: IO[bytes],
    dtype: np.dtype[Any],
    sequences: int,
    documents: int,
    lengths: Callable[[], Iterator[NDArray[np.int32]]],
) -> FileEntry:
    """Write a whole `.idx` for `documents`, of which `sequences` have tokens.

    `lengths()` gives all documents' lengths in tokens, a chunk at a time; it is called once for each table.
    """
    digest = hashlib.sha256()
    size = 0
    for part in _index_parts(dtype, sequences, documents, lengths):
        out.write(part)
        digest.update(part)
        size += len(part)
    return FileEntry(bytes=size, sha256=digest.hexdigest())


def _index_parts(
    dtype: np.dtype[Any], sequences: int, documents: int, lengths: Callable[[], Iterator[NDArray[np.int32]]]
) -> Iterator[bytes]:
    yield _HEADER.pack(MAGIC, VERSION, _CODES[dtype], sequences, documents + 1)
    for chunk in lengths():
        yield chunk[chunk > 0].tobytes()
    offset = 0
    for chunk in lengths():
        sizes = chunk[chunk > 0].astype("<i8") * dtype.itemsize
        ends = offset + np.cumsum(sizes)
        yield (ends - sizes).astype("<i8").tobytes()
        offset = int(ends[-1]) if ends.size else offset
    yield struct.pack("<q", 0)
    before = 0
    for chunk in lengths():
        bounds = before + np.cumsum(chunk > 0)
        yield bounds.astype("<i8").tobytes()
        before = int(bounds[-1]) if bounds.size else before


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A finished `.idx`: its ids' type, how many of its documents have tokens, and how many there are."""

    path: Path
    dtype: np.dtype[Any]
    sequences: int
    documents: int

    def lengths(self) -> Iterator[NDArray[np.int32]]:
        """All documents' lengths in tokens, 0 for an empty one, a chunk at a time."""
        with open(self.path, "rb") as lengths, open(self.path, "rb") as bounds:
            lengths.seek(_HEADER.size)
            bounds.seek(_HEADER.size + 12 * self.sequences)
            last = np.frombuffer(bounds.read(8), "<i8")
            while block := bounds.read(8 * _CHUNK):
                ends = np.concatenate((last, np.frombuffer(block, "<i8")))
                chunk = np.zeros(ends.size - 1, "<i4")
                full = np.diff(ends) > 0
                chunk[full] = np.frombuffer(lengths.read(4 * int(np.count_nonzero(full))), "<i4")
                last = ends[-1:]
                yield chunk


def open_index(path: Path) -> IndexFile:
    """Read the head of an `.idx`. Raises `UserError` where it is not one, or has another size than its head says."""
    with open(path, "rb") as handle:
        head = handle.read(_HEADER.size)
    if len(head) == _HEADER.size:
        magic, version, code, sequences, bounds = _HEADER.unpack(head)
        size = _HEADER.size + 12 * sequences + 8 * bounds
        if (magic, version) == (MAGIC, VERSION) and code in _DTYPES and path.stat().st_size == size:
            return IndexFile(path, _DTYPES[code], sequences, bounds - 1)
    raise UserError(f"{path} is not an index of Megatron's that `mecellem prepare tokenize` writes, or is cut: write it again")
