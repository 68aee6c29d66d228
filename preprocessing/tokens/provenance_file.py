"""`NAME.provenance.jsonl.zst`: the stages and raw files behind the documents of a corpus, named in its manifest.

A line with `stages` (a list of names with settings, None where they are not known) is of the ranges that follow it. Every
other line is a range of documents, `first` to `last` (exclusive), with `source`, `licence`, the `shard` they were read from and
the `parts` of raw files that it was made of: paths, from `start` to `end` in bytes or rows. Ranges follow each other without
gaps, as the documents do in the `.bin`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import orjson
import zstandard

from mecellem.errors import UserError
from mecellem.files import atomic_write, disk_full_is_user_error
from mecellem.manifest import CorpusManifest, ProvenanceEntry, manifest_path, provenance_path, write_manifest

_COPIED_AT_ONCE = 1 << 20

Line = dict[str, Any]


def attach(prefix: Path, manifest: CorpusManifest, lines: Iterable[Line]) -> CorpusManifest:
    """Write the provenance of the finished corpus at `prefix` and name it in its manifest; returns the new manifest.

    What is there already and the same is left as it is. A kill leaves the corpus without provenance, or with all of it: while
    the file is written no manifest names it. Raises `UserError` for ranges that are not of all documents.
    """
    path = provenance_path(prefix)
    with disk_full_is_user_error(path), TemporaryFile(dir=prefix.parent) as spool:
        entry = _packed(path, lines, spool)
        if entry.documents != manifest.documents:
            raise UserError(
                f"{path} would be of {entry.documents:,} documents, the corpus has {manifest.documents:,}: write it again"
            )
        named = manifest.model_copy(update={"provenance": entry})
        if manifest == named and path.is_file() and path.stat().st_size == entry.bytes:
            return manifest
        if manifest.provenance is not None:
            write_manifest(prefix, manifest.model_copy(update={"provenance": None}))
        spool.seek(0)
        with atomic_write(path, "wb") as handle:
            while piece := spool.read(_COPIED_AT_ONCE):
                handle.write(piece)
    write_manifest(prefix, named)
    return named


def _packed(path: Path, lines: Iterable[Line], spool: IO[bytes]) -> ProvenanceEntry:
    """Compress the lines into `spool`; `path` is what it will be called."""
    documents, digest = 0, hashlib.sha256()
    with zstandard.ZstdCompressor(level=3).stream_writer(spool, closefd=False) as writer:
        for line in lines:
            documents = line.get("last", documents)
            writer.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    size = spool.tell()
    spool.seek(0)
    while piece := spool.read(_COPIED_AT_ONCE):
        digest.update(piece)
    return ProvenanceEntry(file=path.name, bytes=size, sha256=digest.hexdigest(), documents=documents)


def merged_lines(corpora: Iterable[tuple[Path, CorpusManifest]]) -> Iterator[Line]:
    """The provenance of corpora that become one, in order: each one's ranges behind those before it.

    A corpus that has none gives the ranges of its manifest, without shards and parts. Raises `UserError` for a file whose
    ranges are not of all its documents, or that is none.
    """
    before: Any = []
    first = 0
    for prefix, manifest in corpora:
        last = 0
        for line in _lines(prefix, manifest):
            if "stages" in line:
                if line["stages"] != before:
                    yield line
                before = line["stages"]
                continue
            if line["first"] != last:
                raise _broken(prefix)
            last = line["last"]
            yield line | {"first": first + line["first"], "last": first + last}
        if last != manifest.documents:
            raise _broken(prefix)
        first += last


def _lines(prefix: Path, manifest: CorpusManifest) -> Iterator[Line]:
    if manifest.provenance is None:
        yield {"stages": None}
        for part in manifest.sources:
            yield part.model_dump() | {"shard": None, "parts": []}
        return
    try:
        with zstandard.open(provenance_path(prefix), "rb") as stream, io.BufferedReader(stream) as lines:
            yield from map(orjson.loads, lines)
    except (zstandard.ZstdError, orjson.JSONDecodeError):
        raise _broken(prefix) from None


def _broken(prefix: Path) -> UserError:
    return UserError(
        f"{provenance_path(prefix)} is not the provenance of all documents that {manifest_path(prefix)} has: "
        "write the corpus again"
    )
