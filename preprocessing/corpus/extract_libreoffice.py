"""LibreOffice's help in Turkish, from two Debian packages: paragraphs that are still English are left out.

Both languages give one paragraph the same id, so an untranslated paragraph is one that equals its original.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.corpus.clean import clean_line, looks_english
from preprocessing.corpus.document import Document, Extract
from preprocessing.corpus.packages import HelpRelease

_ROOT = "./usr/share/libreoffice/help"
_BLOCKS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6", "p"))
# Names of functions and menus are the same in both languages; from four words on, equal means untranslated.
_SHORT = 4
_MIN_WORDS = 10


@dataclass(frozen=True, slots=True)
class HelpPage:
    """A page as one language has it; a paragraph has the same id in every language."""

    title: str
    blocks: tuple[tuple[str, str], ...]  # (id, text)


def extract_libreoffice(turkish: Path, english: Path, release: HelpRelease) -> Extract:
    """Read the Turkish pages of a release from its two `.deb` files. Needs `dpkg-deb`."""
    extract = Extract()
    originals = dict(read_pages(english, "en-US"))
    for name, page in sorted(read_pages(turkish, "tr")):
        original = originals.get(name)
        text = translated_text(page, original, extract)
        if len(text.split()) < _MIN_WORDS:
            extract.dropped[f"fewer than {_MIN_WORDS} Turkish words"] += 1
            continue
        untranslated = (original is not None and page.title == original.title) or looks_english(page.title)
        extract.documents.append(
            Document(
                id=f"libreoffice/{name.removesuffix('.html')}",
                source=release.turkish.source,
                licence=release.turkish.licence,
                title="" if untranslated else page.title,
                text=text,
            )
        )
    return extract


def translated_text(page: HelpPage, original: HelpPage | None, extract: Extract) -> str:
    """The paragraphs that are Turkish, one a line; what is still English is counted in `extract.dropped`."""
    english = dict(original.blocks) if original else {}
    kept = []
    for identity, text in page.blocks:
        same = english.get(identity) == text and len(text.split()) >= _SHORT
        if same or looks_english(text):
            extract.dropped["untranslated paragraph"] += 1
        else:
            kept.append(text)
    return "\n".join(kept)


def read_pages(package: Path, language: str) -> Iterator[tuple[str, HelpPage]]:
    """(path below the language's folder, page) of every HTML page in a `.deb`; nothing is unpacked to disk or run."""
    folder = f"{_ROOT}/{language}/text/"
    unpacked = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, check=True, timeout=120
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(folder) and member.name.endswith(".html"):
                stream = tar.extractfile(member)
                assert stream is not None, member.name
                page = _parse(stream.read())
                if page is not None:
                    yield member.name.removeprefix(folder), page


def _parse(html: bytes) -> HelpPage | None:
    from lxml import html as lxml_html

    root: Any = lxml_html.document_fromstring(html, parser=lxml_html.HTMLParser(encoding="utf-8"))
    areas = root.xpath('//div[@id="DisplayArea"]')
    if not areas:
        return None
    blocks = (
        (element.get("id"), clean_line(element.text_content()))
        for element in areas[0].iter()
        if element.tag in _BLOCKS and element.get("id")
    )
    return HelpPage(
        title=clean_line(root.findtext(".//title") or ""),
        blocks=tuple((identity, text) for identity, text in blocks if text),
    )
