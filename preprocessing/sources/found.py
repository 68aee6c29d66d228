"""What a reader finds in a file: records, and what is wrong with the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Why a record is set aside; the keys are in ledgers and quarantine files.
PROBLEMS: dict[str, str] = {
    "missing_file": "the file vanished, or may not be opened",
    "empty_file": "the file has no bytes",
    "damaged_file": "the compressed or structured file is cut or broken; what stands around the damage was read",
    "too_long": "the record is longer than `limits: record_size`",
    "not_utf8": "the bytes are not UTF-8, or not what `text: encoding` says",
    "not_json": "the line is not a JSON object",
    "nul_bytes": "the record holds NUL characters, as binary files and torn writes do",
    "no_text": "the record has no text field, or it is null",
    "text_type": "the text field holds something else than text",
    "empty_text": "the text has no characters but white space",
    "id_type": "the id field is missing, or holds neither text nor a whole number",
    "duplicate_id": "an earlier record has the same id",
    "broken_pdf": "the PDF cannot be opened",
    "needs_password": "the PDF is encrypted",
    "broken_field": "a field holds what cannot be read, such as a date outside the calendar",
    "ocr_failed": "the OCR plug-in failed on a page",
    "needs_ocr": "the PDF is scanned and no OCR is set up, or it found nothing",
}
# Records that are no text by nature: counted, not held against the source.
SKIPPED: dict[str, str] = {
    "not_a_page": "a WARC record that is no web page: requests, metadata, images",
    "http_status": "a web page that the server did not answer with status 200",
    "no_main_text": "a web page without running text",
    "page_without_text": "a page of a PDF that shows something and has no text: OCR is not set up, or found none",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A record: its number in the file, from 1 (a line, a row, a page), and its fields."""

    number: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that cannot be read: one of `PROBLEMS`, what is wrong with it, and its beginning as it stands there.

    `number` is 0 where the whole file is meant. `detail` is for people: what a terminal would obey is escaped in it.
    """

    number: int
    reason: str
    detail: str
    data: bytes = b""

    def __post_init__(self) -> None:
        if not self.detail.isprintable():
            shown = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in self.detail)
            object.__setattr__(self, "detail", "".join(shown))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is no text by nature: one of `SKIPPED`."""

    reason: str


Item = Found | Problem | Skipped


@dataclass(frozen=True, slots=True)
class Part:
    """What a task reads of one file: from `start` to `end` in units of the reader (bytes, rows; None: all of it).

    `file` is the file's number within its source, `first` the number of the first record of the part.
    """

    path: str
    file: int
    start: int = 0
    end: int | None = None
    first: int = 1


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is read: the fields that are wanted, the longest record in bytes, and options of its kind."""

    source: str
    kind: str
    licence: str
    text_field: str
    id_field: str | None
    keep_fields: tuple[str, ...]
    record_size: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The fields that are wanted, each once."""
        names = (self.text_field, *((self.id_field,) if self.id_field else ()), *self.keep_fields)
        return list(dict.fromkeys(names))
