"""WARC and WET: web pages, their running text by trafilatura, which knows no language.

datatrove's WarcReader needs cchardet and magic, drops what it cannot decode without a word, and gives HTML; warcio and
trafilatura are what it uses itself.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from typing import Any

from preprocessing.sources.found import Found, Item, Part, Problem, Reading, Skipped
from preprocessing.sources.lines import SAMPLE

_PAGES = ("text/html", "application/xhtml+xml")


def read(part: Part, reading: Reading) -> Iterator[Item]:
    """Yield the pages of a file; a record's number counts from 1 over all records, whatever they are."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed
    from warcio.statusandheaders import StatusAndHeadersParserException

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # its complaints are ours to count
    number = 0
    with open(part.path, "rb") as handle:
        try:
            for record in ArchiveIterator(handle):
                number += 1
                yield _page(number, record, reading)
        except (ArchiveLoadFailed, StatusAndHeadersParserException, EOFError, ValueError, zlib.error) as error:
            detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            yield Problem(number + 1, "damaged_file", f"{detail}; the file was read up to here")


def _page(number: int, record: Any, reading: Reading) -> Item:
    kind, charset = _content_type(record)
    plain = record.rec_type == "conversion" and kind in ("text/plain", "")
    if not plain and (record.rec_type != "response" or kind not in _PAGES):
        return Skipped("not_a_page")
    if not plain and record.http_headers and record.http_headers.get_statuscode() != "200":
        return Skipped("http_status")  # an error's page says nothing that its site wanted to say
    data = record.content_stream().read(reading.record_size + 1)
    if len(data) > reading.record_size:
        return Problem(number, "too_long", f"the page has more than {reading.record_size:,} bytes", data[:SAMPLE])
    if _is_cut(record):
        return Problem(number, "damaged_file", "the record ends early", data[:SAMPLE])
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
