"""Plain text, plain or .gz or .zst: a document a file, or documents with blank lines between them.

Text in another encoding becomes UTF-8 as it is read; what cannot be decoded becomes bytes that are no UTF-8 either, so that
they are located as such bytes of a UTF-8 file are. Lengths are those of the UTF-8.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from preprocessing.sources.blocks import stretches
from preprocessing.sources.found import Found, Item, Part, Problem, Reading
from preprocessing.sources.lines import SAMPLE, LongLine, split_lines

UTF_8 = "utf-8"
_BOM = b"\xef\xbb\xbf"
_LOST = "\udc80"  # half of a surrogate pair: its three bytes are no UTF-8
codecs.register_error("mecellem_lost", lambda error: (_LOST, error.end if isinstance(error, UnicodeDecodeError) else 0))


def read(part: Part, reading: Reading) -> Iterator[Item]:
    """Yield the documents and problems of a part; a document's number is that of its first line."""
    by_file = reading.options["documents"] == "file"
    encoding = reading.options["encoding"]
    number = part.first - 1
    for stretch in stretches(Path(part.path), part.start, part.end):
        lines: list[bytes] = []
        first, size = number + 1, 0
        lost = stretch.resumed  # the rest of the document that the damage fell into
        for line in split_lines(_utf_8(stretch, encoding), reading.record_size):
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
            if is_wide(encoding):  # behind the damage nothing tells where a character begins
                return
        elif not lost:
            yield from _document(first, lines, size, reading)


def is_wide(encoding: str) -> bool:
    """Whether a line end is more than its one byte, as in UTF-16: then lines cannot be told before decoding."""
    return "\n".encode(encoding) != b"\n"


def _utf_8(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    if encoding == UTF_8:
        yield from pieces
        return
    decoder = codecs.getincrementaldecoder(encoding)("mecellem_lost")
    for piece in pieces:
        yield decoder.decode(piece).encode(errors="surrogatepass")
    yield decoder.decode(b"", final=True).encode(errors="surrogatepass")


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
        encoding = reading.options["encoding"]
        detail = f"byte {error.start} of the document; its `text: encoding` is {encoding}: set the one that the file has"
        yield Problem(line, "not_utf8", detail, data[error.start : error.start + SAMPLE])
        return
    yield Found(first, {reading.text_field: text.replace("\r\n", "\n").removesuffix("\r")})
