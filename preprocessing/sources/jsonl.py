"""JSONL, plain or .gz or .zst: one object a line.

datatrove's JsonlReader skips a line that is not JSON without saying which, ends a file at the first byte that is not
UTF-8, and reads a line whole however long it is. Here every such line is located, and the rest of the file is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from preprocessing.jsonl import json_type
from preprocessing.sources.blocks import stretches
from preprocessing.sources.found import Found, Item, Part, Problem, Reading
from preprocessing.sources.lines import SAMPLE, LongLine, split_lines

_BOM = b"\xef\xbb\xbf"


def read(part: Part, reading: Reading) -> Iterator[Item]:
    """Yield the records and problems of a part, line by line."""
    number = part.first - 1
    for stretch in stretches(Path(part.path), part.start, part.end):
        held: bytes | LongLine | None = None  # one line behind: the line that damage cuts is no record
        head = stretch.resumed
        for line in split_lines(stretch, reading.record_size):
            if held is not None:
                yield from _line(number, held, reading)
            number += 1
            held, head = (None if head and not _is_whole(line) else line), False
        torn = stretch.damage is not None and stretch.cut
        if held is not None and not torn:
            yield from _line(number, held, reading)
        if stretch.damage is not None:
            sample = held.sample if isinstance(held, LongLine) else (held or b"")[:SAMPLE]
            yield Problem(number if torn else number + 1, "damaged_file", stretch.damage, sample if torn else b"")


def _is_whole(line: bytes | LongLine) -> bool:
    """Whether the first line behind a damage is a record, and not the rest of one."""
    try:
        return isinstance(line, bytes) and isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _line(number: int, line: bytes | LongLine, reading: Reading) -> Iterator[Item]:
    if isinstance(line, LongLine):
        detail = f"the line has {line.length:,} bytes, limits: record_size allows {reading.record_size:,}"
        yield Problem(number, "too_long", detail, line.sample)
        return
    if number == 1:
        line = line.removeprefix(_BOM)
    if line.strip():
        yield _record(number, line)


def _record(number: int, line: bytes) -> Item:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if b"\0" in line:
            return Problem(number, "nul_bytes", f"{line.count(0):,} NUL bytes", line[:SAMPLE])
        try:
            line.decode()
        except UnicodeDecodeError as decoding:
            return Problem(number, "not_utf8", f"byte {decoding.start} of the line", line[:SAMPLE])
        return Problem(number, "not_json", f"{error.msg}, character {error.colno}", line[:SAMPLE])
    if not isinstance(fields, dict):
        return Problem(number, "not_json", f"an object is needed, not {json_type(fields)}", line[:SAMPLE])
    return Found(number, fields)
