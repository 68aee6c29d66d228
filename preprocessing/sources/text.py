"""Plain text, plain or .gz or .zst: a document a file, or documents with blank lines between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.sources.blocks import stretches
from preprocessing.sources.found import Found, Item, Part, Problem, Reading
from preprocessing.sources.lines import SAMPLE, LongLine, split_lines

_BOM = b"\xef\xbb\xbf"


def read(part: Part, reading: Reading) -> Iterator[Item]:
    """Yield the documents and problems of a part; a document's number is that of its first line."""
    by_file = reading.options["documents"] == "file"
    number = part.first - 1
    for stretch in stretches(Path(part.path), part.start, part.end):
        lines: list[bytes] = []
        first, size = number + 1, 0
        lost = stretch.resumed  # the rest of the document that the damage fell into
        for line in split_lines(stretch, reading.record_size):
            number += 1
            if not by_file and not isinstance(line, LongLine) and not line.strip():
                yield from () if lost else _document(first, lines, size, reading)
                lines, size, lost = [], 0, False
                continue
            if not size:
                first = number
            content = line.sample if isinstance(line, LongLine) else line
            size += (line.length if isinstance(line, LongLine) else len(line)) + 1
            if size <= reading.record_size or not lines:
                lines.append(content)
        if stretch.damage is not None:  # the document that it falls into has lost its end
            yield Problem(max(number, 1), "damaged_file", stretch.damage, b"\n".join(lines)[:SAMPLE])
        elif not lost:
            yield from _document(first, lines, size, reading)


def _document(first: int, lines: list[bytes], size: int, reading: Reading) -> Iterator[Item]:
    if not size:
        return
    if size > reading.record_size:
        detail = f"the document has {size:,} bytes, limits: record_size allows {reading.record_size:,}"
        yield Problem(first, "too_long", detail, lines[0][:SAMPLE])
        return
    data = b"\n".join(lines).removeprefix(_BOM)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = first + data.count(b"\n", 0, error.start)
        yield Problem(line, "not_utf8", f"byte {error.start} of the document", data[error.start : error.start + SAMPLE])
        return
    yield Found(first, {reading.text_field: text.replace("\r\n", "\n").removesuffix("\r")})
