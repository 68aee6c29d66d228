"""From what a reader finds to documents: the one place where a record's fields are checked."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from datatrove.data import Document

from preprocessing.jsonl import json_type
from preprocessing.sources.found import Found, Item, Part, Problem, Reading, Skipped
from preprocessing.sources.lines import SAMPLE

_RECORDS = 100  # that are looked at for names
_NO_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ESTALE, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


def read_part(part: Part, reading: Reading) -> Iterator[Document | Problem | Skipped]:
    """Yield the documents of a part and, in between, what is wrong; a file that is gone is a problem, not an error."""
    try:
        if part.start == 0 and reading.kind != "hub" and not Path(part.path).stat().st_size:
            yield Problem(0, "empty_file", "the file has no bytes")
            return
        for item in _reader(reading.kind)(part, reading):
            yield _document(item, part, reading) if isinstance(item, Found) else item
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        yield Problem(0, "missing_file", error.strerror or str(error))


def field_names(parts: Sequence[Part], reading: Reading, most: int) -> list[str]:
    """Names that the first records of the first part that has any have beside the text's; at most `most`."""
    for part in parts:
        if names := [name for name in first_names([part], reading) if name != reading.text_field]:
            return names[:most]
    return []


def first_names(parts: Sequence[Part], reading: Reading) -> list[str]:
    """All names, sorted, that the first records of the first part that has any have; a file that is gone has none."""
    for part in parts:
        with suppress(OSError):
            found = (item for item in _reader(reading.kind)(part, reading) if isinstance(item, Found))
            if names := {name for item in islice(found, _RECORDS) for name in item.fields}:
                return sorted(names)
    return []


def _reader(kind: str) -> Callable[[Part, Reading], Iterator[Item]]:
    return importlib.import_module(f"preprocessing.sources.{kind}").read


def origin(part: Part, number: int, kind: str) -> str:
    """Where a record came from: file:line, file#row, or the file that is one document."""
    if kind == "pdf":
        return part.path
    return f"{part.path}:{number}" if kind in ("jsonl", "text") else f"{part.path}#{number}"


def _document(found: Found, part: Part, reading: Reading) -> Document | Problem:
    text = found.fields.get(reading.text_field)
    if not isinstance(text, str):
        if text is None:
            known = ", ".join(list(found.fields)[:8]) or "none"
            there = reading.text_field in found.fields
            detail = (
                f"field {reading.text_field!r} is null" if there else f"no field {reading.text_field!r}; the fields are {known}"
            )
            return Problem(found.number, "no_text", detail)
        detail = f"field {reading.text_field!r} holds {_type(text)}"
        return Problem(found.number, "text_type", detail, str(text)[:SAMPLE].encode("utf-8", "replace"))
    if reason := _unfit(text, reading.record_size):
        return Problem(found.number, *reason, text[:SAMPLE].encode("utf-8", "replace"))
    name: Any = f"{reading.source}/{part.file}/{found.number}"
    if reading.id_field:
        name = found.fields.get(reading.id_field)
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not name:
            detail = f"field {reading.id_field!r} holds {'nothing' if name in (None, '') else _type(name)}"
            return Problem(found.number, "id_type", detail, text[:SAMPLE].encode())
    kept = {field: _plain(found.fields[field]) for field in reading.keep_fields if field in found.fields}
    where = origin(part, found.number, reading.kind)
    return Document(text, name, metadata={"source": reading.source, "licence": reading.licence, "origin": where, **kept})


def _unfit(text: str, record_size: int) -> tuple[str, str] | None:
    """Why a text cannot be a document: a reason and what exactly, or None."""
    if not text.strip():
        return "empty_text", "nothing but white space" if text else "no characters"
    if "\0" in text:
        return "nul_bytes", f"{text.count(chr(0)):,} NUL characters"
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        return "not_utf8", f"half of a surrogate pair, character {error.start}"
    if size > record_size:
        return "too_long", f"the text has {size:,} bytes, limits: record_size allows {record_size:,}"
    return None


def _type(value: Any) -> str:
    """What a field holds, in words: Parquet and data sets have more types than JSON."""
    return json_type(value) if isinstance(value, (bool, int, float, list, dict)) else type(value).__name__


def _plain(value: Any) -> Any:
    """A kept field as JSON can say it."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)
