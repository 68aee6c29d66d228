"""Plain text, plain or .gz or .zst: a document a file, or documents with blank lines between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preprocessing.sources.blocks import blocks
from preprocessing.sources.found import Found, Item, Part, Problem, Reading
from preprocessing.sources.lines import SAMPLE, LongLine, Watched, split_lines

_BOM = b"\xef\xbb\xbf"


def read(part: Part, reading: Reading) -> Iterator[Item]:
    """Yield the documents and problems of a part; a document's number is that of its first line."""
    pieces = Watched(blocks(Path(part.path), part.start, part.end))
    by_file = reading.options["documents"] == "file"
    lines: list[bytes] = []
    first, size, number = part.first, 0, part.first - 1
    for line in split_lines(pieces, reading.record_size):
        number += 1
        if not by_file and not isinstance(line, LongLine) and not line.strip():
            yield from _document(first, lines, size, reading)
            lines, size = [], 0
            continue
        if not size:
            first = number
        content = line.sample if isinstance(line, LongLine) else line
        size += (line.length if isinstance(line, LongLine) else len(line)) + 1
        if size <= reading.record_size or not lines:
            lines.append(content)
    if pieces.damage is not None:  # the document that it falls into has lost its end
        yield Problem(max(number, 1), "damaged_file", pieces.damage, b"\n".join(lines)[:SAMPLE])
    else:
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
