"""Texts that `distill_e5.py` learns from: the sample's train split in pieces, and the English of the same help pages.

Documents of the test split are in none of them, and neither are the contract and the declaration that bitext is scored on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from evaluation.tasks.sources import Sources
from mecellem.files import atomic_folder
from preprocessing.corpus.document import Document
from preprocessing.corpus.read_split import read_split

WORDS = 40  # of a piece, about 80 tokens of e5's: shorter than what the tasks read, as time is short

Text = dict[str, str]


def pieces(text: str) -> Iterator[str]:
    """Paragraphs, short ones joined and long ones cut at spaces, of about `WORDS` words."""
    words: list[str] = []
    for paragraph in text.split("\n"):
        found = paragraph.split()
        if words and len(words) + len(found) > WORDS:
            yield " ".join(words)
            words = []
        words += found
        while len(words) > WORDS:
            yield " ".join(words[:WORDS])
            words = words[WORDS:]
    if words:
        yield " ".join(words)


def turkish(documents: Iterable[Document]) -> Iterator[Text]:
    """Titles and pieces."""
    for document in documents:
        for text in (document.title, *pieces(document.text)):
            if text.strip():
                yield {"text": text, "lang": "tr", "source": document.source}


def english(sources: Sources, ids: set[str]) -> Iterator[Text]:
    """English titles and paragraphs of the help pages with these ids."""
    for page in sources.help:
        if page.id in ids:
            for text in (page.english_title, *pieces("\n".join(original for original, _ in page.pairs))):
                if text.strip():
                    yield {"text": text, "lang": "en", "source": "libreoffice_en"}


def write_texts(corpus: Path, packages: Path, folder: Path) -> dict[str, int]:
    """`FOLDER/tr.jsonl` and `en.jsonl` to learn from, and `test_tr.jsonl`, `test_en.jsonl`; how many texts each has."""
    sources, counts = Sources(packages), {}
    with atomic_folder(folder) as temporary:
        for split, prefix in (("train", ""), ("test", "test_")):
            documents = read_split(corpus, split)
            ids = {document.id for document in documents}
            for language, texts in (("tr", turkish(documents)), ("en", english(sources, ids))):
                found = list({text["text"]: text for text in texts}.values())
                with open(temporary / f"{prefix}{language}.jsonl", "w", encoding="utf-8") as handle:
                    handle.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in found)
                counts[f"{prefix}{language}"] = len(found)
    return counts
