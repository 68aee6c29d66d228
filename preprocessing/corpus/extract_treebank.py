"""Sentences of Turkish Wikipedia articles and web pages from the CoNLL-U files of the `turkish-treebanks` wheel."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from urllib.parse import unquote

from preprocessing.corpus.clean import clean_line, looks_english
from preprocessing.corpus.document import Document, Extract
from preprocessing.corpus.packages import TREEBANK

_FILES = ("data/wiki.conllu", "data/web.conllu")
_WIKIPEDIA = "http://tr.wikipedia.org/wiki/"
_ID = "# sent_id = "
_TEXT = "# text = "


def extract_treebank(wheel: Path) -> Extract:
    """Gather the sentences of one article or page into one document, in the page's order, one sentence a line."""
    extract = Extract()
    pages: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in _FILES:
            with archive.open(name) as raw:
                for page, number, sentence in _sentences(io.TextIOWrapper(raw, encoding="utf-8")):
                    if looks_english(sentence):
                        extract.dropped["English sentence"] += 1
                    elif sentence in pages.setdefault(page, {}).values():
                        extract.dropped["sentence repeated on its page"] += 1
                    else:
                        pages[page][number] = sentence
    for page, sentences in sorted(pages.items()):
        if sentences:
            extract.documents.append(_document(page, sentences))
    return extract


def _sentences(lines: io.TextIOBase) -> list[tuple[str, str, str]]:
    """(page, number of the sentence on it, text) of every sentence; its id stands in the line above its text."""
    sentences = []
    identity = ""
    for line in lines:
        if line.startswith(_ID):
            identity = line.removeprefix(_ID).strip()
        elif line.startswith(_TEXT):
            page, _, number = identity.rpartition(":")
            sentences.append((page, number, clean_line(line.removeprefix(_TEXT))))
    return sentences


def _document(page: str, sentences: dict[str, str]) -> Document:
    is_article = page.startswith(_WIKIPEDIA)
    return Document(
        id=f"treebank/{unquote(page.removeprefix(_WIKIPEDIA))}",
        source=TREEBANK.source,
        licence=TREEBANK.licence,
        title=clean_line(unquote(page.removeprefix(_WIKIPEDIA)).replace("_", " ")) if is_article else "",
        text="\n".join(sentences[number] for number in sorted(sentences)),
    )
