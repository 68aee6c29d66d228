"""Megatron's `.bin/.idx` pair, written in bounded memory: token ids end to end, and where each document lies.

`.idx`: 9 bytes of magic; version 1 (u64); code of the ids' type (u8: 4 = int32, 8 = uint16); number of sequences (u64);
number of document bounds (u64); then the sequences' lengths (int32), their byte offsets in the `.bin` (int64) and the
document bounds (int64, the first is 0), all little-endian. Each document is one sequence here, as `preprocess_data.py`
of Megatron-LM writes it, and a document without tokens is, as there, a bound that repeats the one before: it has no
sequence.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mecellem.files import atomic_write, disk_full_is_user_error
from mecellem.manifest import FileEntry, manifest_path

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES: dict[int, np.dtype[Any]] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_CHUNK = 1 << 20  # documents at a time while the .idx is written


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 below 65,500 entries, else int32: the rule of megatron.core's `DType.optimal_dtype`."""
    return _DTYPES[8] if vocab_size < 65_500 else _DTYPES[4]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file: its name and what the manifest says of it."""

    name: str
    entry: FileEntry


class IndexedWriter:
    """Collects batches of documents; made by `open_writer`, which also puts the files in place."""

    def __init__(self, stream: IO[bytes], lengths: IO[bytes], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.documents = 0
        self.sequences = 0
        self.tokens = 0
        self._stream = stream
        self._lengths = lengths
        self._digest = hashlib.sha256()

    def add(self, ids: NDArray[Any], lengths: NDArray[Any]) -> None:
        """Append documents: `ids` (tokens,) end to end, `lengths` (documents,) in tokens, 0 for an empty document."""
        assert ids.ndim == lengths.ndim == 1 and int(lengths.sum()) == ids.size, (ids.shape, lengths.shape)
        data = np.ascontiguousarray(ids, self.dtype).view(np.uint8).data
        self._stream.write(data)
        self._digest.update(data)
        self._lengths.write(np.ascontiguousarray(lengths, "<i4").tobytes())
        self.documents += lengths.size
        self.sequences += int(np.count_nonzero(lengths))
        self.tokens += ids.size

    def bin_entry(self) -> FileEntry:
        """Size and SHA-256 of what was written to the `.bin` so far."""
        return FileEntry(bytes=self.tokens * self.dtype.itemsize, sha256=self._digest.hexdigest())

    def write_index(self, out: IO[bytes]) -> FileEntry:
        """Write the whole `.idx` from the spooled lengths, in three passes of bounded memory."""
        digest = hashlib.sha256()
        size = 0
        for part in self._index_parts():
            out.write(part)
            digest.update(part)
            size += len(part)
        return FileEntry(bytes=size, sha256=digest.hexdigest())

    def _index_parts(self) -> Iterator[bytes]:
        yield _HEADER.pack(MAGIC, VERSION, _CODES[self.dtype], self.sequences, self.documents + 1)
        for lengths in self._spooled_lengths():
            yield lengths[lengths > 0].tobytes()
        offset = 0
        for lengths in self._spooled_lengths():
            sizes = lengths[lengths > 0].astype("<i8") * self.dtype.itemsize
            ends = offset + np.cumsum(sizes)
            yield (ends - sizes).astype("<i8").tobytes()
            offset = int(ends[-1]) if ends.size else offset
        yield struct.pack("<q", 0)
        sequences = 0
        for lengths in self._spooled_lengths():
            bounds = sequences + np.cumsum(lengths > 0)
            yield bounds.astype("<i8").tobytes()
            sequences = int(bounds[-1])

    def _spooled_lengths(self) -> Iterator[NDArray[np.int32]]:
        self._lengths.flush()
        self._lengths.seek(0)
        while block := self._lengths.read(4 * _CHUNK):
            yield np.frombuffer(block, "<i4")


@contextmanager
def open_writer(prefix: Path, dtype: np.dtype[Any], finished: list[WrittenFile]) -> Iterator[IndexedWriter]:
    """Yield a writer; when the block ends well `<prefix>.bin` and `<prefix>.idx` appear, else neither does.

    An older manifest goes away just before the first of the new files is renamed, so that it never stands beside
    files that are not its own. `finished` then holds both files, for the new manifest.
    Raises `UserError` on a full disk.
    """
    bin_path, idx_path = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    with disk_full_is_user_error(bin_path):
        prefix.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryFile(dir=prefix.parent) as lengths,
            atomic_write(idx_path, "wb") as index,
            atomic_write(bin_path, "wb") as stream,
        ):
            writer = IndexedWriter(stream, lengths, dtype)
            yield writer
            finished += [
                WrittenFile(bin_path.name, writer.bin_entry()),
                WrittenFile(idx_path.name, writer.write_index(index)),
            ]
            for handle in (stream, index):  # a full disk shows here, while the older corpus is still whole
                handle.flush()
                os.fsync(handle.fileno())
            manifest_path(prefix).unlink(missing_ok=True)
