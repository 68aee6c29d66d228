"""From sources to tasks: which parts of which files make one shard, whatever the number of workers."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mecellem.errors import UserError
from preprocessing.sources.blocks import is_compressed
from preprocessing.sources.found import Part, Reading
from preprocessing.sources.text import is_wide

_SEEK = 1 << 16
_SUFFIXES = {
    "jsonl": (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst", ".ndjson.gz", ".ndjson.zst"),
    "parquet": (".parquet",),
    "text": (".txt", ".txt.gz", ".txt.zst", ".md"),
    "warc": (".warc", ".warc.gz", ".wet", ".wet.gz"),
    "pdf": (".pdf", ".PDF"),
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source as it was found: number within the source, size in bytes, time of its last change."""

    path: str
    number: int
    size: int
    changed: int


def find_files(name: str, kind: str, patterns: list[str]) -> list[SourceFile]:
    """The files of a source in the order of `paths`, each pattern's files sorted. Raises `UserError` where there are none.

    A link that leads nowhere, among the files of a pattern, is a file of no bytes: the task that reads it tells that it is
    missing, and `limits: missing_files` says whether the run goes on.
    """
    found: dict[str, bool] = {}
    for pattern in patterns:
        is_pattern = glob.has_magic(pattern)
        # Path.glob takes no pattern that starts with a slash
        matches = sorted(glob.glob(pattern, recursive=True)) if is_pattern else [pattern]  # noqa: PTH207
        matches = [path for path in matches if not Path(path).is_dir() or path == pattern]
        if not matches:
            raise UserError(f"source {name}: {pattern} matches no file: {_why_none(pattern)}")
        for path in matches:
            found.setdefault(path, is_pattern)
    return [_source_file(name, kind, path, number, may_lack) for number, (path, may_lack) in enumerate(found.items())]


def _why_none(pattern: str) -> str:
    """What to do about a pattern without files: a folder that is missing or may not be read looks to glob as an empty one."""
    folder = Path(pattern)
    while glob.has_magic(str(folder)):
        folder = folder.parent
    if not folder.is_dir():
        return f"the folder {folder} is not there, check `paths`"
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"the folder {folder} may not be read, check its permissions"
    return "check `paths`"


def _source_file(name: str, kind: str, path: str, number: int, may_lack: bool) -> SourceFile:
    if Path(path).is_dir():
        raise UserError(f"source {name}: {path} is a folder: write {Path(path) / '*'}{_SUFFIXES[kind][0]}")
    if not path.endswith(_SUFFIXES[kind]):
        raise UserError(f"source {name}: {path} does not look like kind: {kind}: its name should end in {_SUFFIXES[kind][0]}")
    try:
        status = Path(path).stat()
    except PermissionError:
        raise UserError(f"source {name}: {path} may not be read: check its permissions") from None
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        if may_lack:
            return SourceFile(path, number, 0, 0)
        raise UserError(f"source {name}: {path} is not there: check `paths`") from None
    return SourceFile(path, number, status.st_size, status.st_mtime_ns)


def plan_tasks(files: list[SourceFile], reading: Reading, shard_size: int) -> list[list[Part]]:
    """Tasks of one source: consecutive parts of files that together have about `shard_size` bytes as they lie on disk.

    Small files of any kind share a task, so that a folder of a million PDFs is as many tasks as its bytes ask for. A
    compressed file, a WARC and a PDF are one part each, however large: they can only be read from their beginning. Raises
    `UserError` for columns that no file of a Parquet source has.
    """
    tasks: list[list[Part]] = []
    parts: list[Part] = []
    columns: set[str] = set()
    held = 0
    for file in files:
        for part, size in _parts(file, reading, shard_size, columns):
            if parts and held + size > shard_size:
                tasks.append(parts)
                parts, held = [], 0
            parts.append(part)
            held += size
    if reading.kind == "parquet":
        _check_kept(reading, columns)
    return [*tasks, parts] if parts else tasks


def _check_kept(reading: Reading, columns: set[str]) -> None:
    """A record of a Parquet file has the file's columns: a field that is none can be told of before all work."""
    for name in reading.keep_fields:
        if name not in columns:
            raise UserError(
                f"source {reading.source}: no file has a column {name!r}: set keep_fields to some of "
                f"{', '.join(sorted(columns)[:12])}"
            )


def _parts(file: SourceFile, reading: Reading, shard_size: int, columns: set[str]) -> Iterator[tuple[Part, int]]:
    """The parts of one file with their sizes in bytes; the names of a Parquet file's columns are added to `columns`."""
    whole = Part(file.path, file.number)
    if reading.kind == "parquet":
        yield from _row_groups(file, whole, reading, shard_size, columns)
    elif reading.kind in ("jsonl", "text") and file.size > shard_size and not is_compressed(Path(file.path)):
        if reading.kind == "text" and (reading.options["documents"] == "file" or is_wide(reading.options["encoding"])):
            yield whole, file.size
            return
        start = 0
        for end in _cuts(file, shard_size, blank=reading.kind == "text"):
            yield Part(file.path, file.number, start, end, first=0), end - start
            start = end
    else:
        yield whole, file.size


def _cuts(file: SourceFile, shard_size: int, blank: bool) -> Iterator[int]:
    """Ends of byte ranges: after the first line end, or blank line, at or behind each multiple of `shard_size`."""
    with open(file.path, "rb") as handle:
        position = 0
        while position + shard_size < file.size:
            position = _next_start(handle.fileno(), position + shard_size - 1, file.size, blank)
            yield position
        if position < file.size:
            yield file.size


def _next_start(descriptor: int, position: int, size: int, blank: bool) -> int:
    """Where the first record starts whose separator begins at `position` or later; `size` where there is none."""
    import os
    import re

    separator = re.compile(rb"\n[ \t\r]*\n" if blank else rb"\n")
    carried = b""
    while position < size:
        piece = os.pread(descriptor, _SEEK, position)
        if not piece:
            return size
        if match := separator.search(carried + piece):
            return position - len(carried) + match.end()
        position += len(piece)
        # what may be the beginning of a separator, unless white space goes on for ever
        tail = re.search(rb"\n[ \t\r]*$", (carried + piece)[-_SEEK:]) if blank else None
        carried = tail[0] if tail else b""
    return size


def _row_groups(
    file: SourceFile, whole: Part, reading: Reading, shard_size: int, columns: set[str]
) -> Iterator[tuple[Part, int]]:
    import pyarrow

    from preprocessing.sources.parquet import row_groups

    try:
        names, groups = row_groups(file.path)
    except (pyarrow.ArrowException, OSError):
        columns.update(reading.keep_fields)  # who knows
        yield whole, file.size  # the task that reads it tells what is wrong
        return
    columns.update(names)
    if reading.text_field not in names:
        raise UserError(
            f"source {reading.source}: {file.path} has no column {reading.text_field!r}: "
            f"set text_field to one of {', '.join(names[:12])}"
        )
    first, start, rows, held = 1, 0, 0, 0
    for number, (count, size) in enumerate(groups):
        if number > start and held + size > shard_size:
            yield Part(file.path, file.number, start, number, first), held
            first, start, rows, held = first + rows, number, 0, 0
        rows, held = rows + count, held + size
    yield Part(file.path, file.number, start, len(groups), first), held
