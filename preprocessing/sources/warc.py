"""WARC and WET: web pages, their running text by trafilatura, which knows no language.

datatrove's WarcReader needs cchardet and magic, drops what it cannot decode without a word, and gives HTML; warcio and
trafilatura are what it uses itself.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from preprocessing.sources.blocks import gzip_stretches, is_gzip, plain_stretch
from preprocessing.sources.found import Found, Item, Part, Problem, Reading, Skipped
from preprocessing.sources.lines import SAMPLE

_PAGES = ("text/html", "application/xhtml+xml")
_CUT = "the record ends early"
_BLOCK = 1 << 16
_HEAD = re.compile(rb"\n(WARC/\d\.\d\r?\n[\w-]+:)")
_LONGEST_HEAD = 64  # bytes of a window's end that may be the beginning of one


def read(part: Part, reading: Reading) -> Iterator[Item]:
    """Yield the pages of a file; a record's number counts from 1 over all records, whatever they are.

    Behind damage reading goes on at the next record: in a gzip file each is a member of its own, else it is looked for.
    """
    from warcio.archiveiterator import ArchiveIterator

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # its complaints are ours to count
    path, number = Path(part.path), 0
    for stretch in gzip_stretches(path) if _is_packed(path) else plain_stretch(path):
        content, cut = _Content(stretch), False
        goes_on = not stretch.resumed or content.skip_to_record()
        while goes_on:
            records = ArchiveIterator(content)
            while (record := _next(records)) is not None:
                number += 1
                item = _page(number, record, reading)
                cut = isinstance(item, Problem) and item.detail == _CUT
                if not (cut and stretch.damage is not None):  # which tells of it
                    yield item
            goes_on = records.reader is not None  # warcio closes it at the end
            if goes_on:
                begin = content.take_back(records.reader)
                goes_on = content.skip_to_record()
                if goes_on or stretch.damage is None:
                    yield Problem(number + 1, "damaged_file", _passed_over(begin, content.position if goes_on else None))
        if stretch.damage is not None:
            yield Problem(number if cut else number + 1, "damaged_file", stretch.damage)


def _is_packed(path: Path) -> bool:
    """Whether it is to be read as a gzip file: by its content, as names lie; one with a broken beginning by its name."""
    if is_gzip(path):
        return True
    with open(path, "rb") as handle:
        return path.name.endswith(".gz") and handle.read(5) != b"WARC/"


def _next(records: Any) -> Any:
    """The next record; None at the end, and where what follows is none."""
    try:
        return next(records, None)
    except OSError:
        raise
    except Exception:  # for what stands in place of a record's head warcio has its own errors, and Python's
        return None


def _passed_over(begin: int, end: int | None) -> str:
    if end is None:
        return f"no record begins at byte {begin:,} of its content, nor later; the file was read up to here"
    return (
        f"what stands between bytes {begin:,} and {end:,} of its content is no record; reading went on behind it, and numbers "
        "from here on count only what could be read"
    )


class _Content:
    """A stretch of a file as warcio reads it; `position` counts its bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = memoryview(b"")
        self.position = 0

    def read(self, size: int) -> bytes:
        """At most `size` of the next bytes; none only at the end."""
        while not self._held and (piece := next(self._pieces, None)) is not None:
            self._held = memoryview(piece)
        data, self._held = bytes(self._held[:size]), self._held[size:]
        self.position += len(data)
        return data

    def tell(self) -> int:
        """Where the next bytes stand."""
        return self.position

    def take_back(self, reader: Any) -> int:
        """What warcio has read ahead and not looked at; returns where that stands."""
        self._hold(reader.read(reader.rem_length()))
        return self.position

    def skip_to_record(self) -> bool:
        """Go to the next line that begins a record; False, and to the end, where there is none."""
        window = b"\n"  # what comes first may begin one
        while data := self.read(_BLOCK):
            window += data
            if match := _HEAD.search(window):
                self._hold(window[match.end() - len(match[1]) :])
                return True
            window = window[-_LONGEST_HEAD:]
        return False

    def _hold(self, data: bytes) -> None:
        self._held = memoryview(data + bytes(self._held))
        self.position -= len(data)


def _page(number: int, record: Any, reading: Reading) -> Item:
    kind, charset = _content_type(record)
    plain = record.rec_type == "conversion" and kind in ("text/plain", "")
    if not plain and (record.rec_type != "response" or kind not in _PAGES):
        return Skipped("not_a_page")
    if not plain and record.http_headers and record.http_headers.get_statuscode() != "200":
        return Skipped("http_status")  # an error's page says nothing that its site wanted to say
    try:
        data = record.content_stream().read(reading.record_size + 1)
    except (ValueError, EOFError, zlib.error) as error:  # of what packs the page inside its record
        return Problem(number, "damaged_file", f"the record cannot be unpacked ({error})")
    if len(data) > reading.record_size:
        return Problem(number, "too_long", f"the page has more than {reading.record_size:,} bytes", data[:SAMPLE])
    if _is_cut(record):
        return Problem(number, "damaged_file", _CUT, data[:SAMPLE])
    fields = {
        "url": record.rec_headers.get_header("WARC-Target-URI"),
        "date": record.rec_headers.get_header("WARC-Date"),
        "record_id": record.rec_headers.get_header("WARC-Record-ID"),
    }
    if plain:
        try:
            return Found(number, {**fields, reading.text_field: data.decode()})
        except UnicodeDecodeError as error:
            return Problem(number, "not_utf8", f"byte {error.start} of the record", data[:SAMPLE])
    text = _running_text(data, charset)
    return Found(number, {**fields, reading.text_field: text}) if text else Skipped("no_main_text")


def _is_cut(record: Any) -> bool:
    """Whether the file ended before the record did, which warcio takes for its end."""
    while record.raw_stream.read(1 << 16):
        pass
    return getattr(record.raw_stream, "limit", 0) > 0


def _content_type(record: Any) -> tuple[str, str]:
    """(media type, charset), both in lower case and "" where unknown, of what a record holds."""
    header = record.http_headers.get_header("Content-Type") if record.http_headers else None
    header = header or record.rec_headers.get_header("Content-Type") or ""
    kind, _, rest = header.partition(";")
    charset = rest.partition("charset=")[2].strip(" \"'")
    return kind.strip().lower(), charset.lower()


def _running_text(data: bytes, charset: str) -> str | None:
    import trafilatura

    page: bytes | str = data
    if charset:
        try:
            page = data.decode(charset)
        except (LookupError, UnicodeDecodeError):
            page = data  # trafilatura looks for the encoding itself
    return trafilatura.extract(page, include_comments=False, include_tables=True, deduplicate=False)
