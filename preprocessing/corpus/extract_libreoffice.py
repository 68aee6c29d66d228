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
class _Page:
    title: str
    blocks: tuple[tuple[str, str], ...]  # (id, text)


def extract_libreoffice(turkish: Path, english: Path, release: HelpRelease) -> Extract:
    """Read the Turkish pages of a release from its two `.deb` files. Needs `dpkg-deb`."""
    extract = Extract()
    originals = dict(_pages(english, f"{_ROOT}/en-US/text/"))
    for name, page in sorted(_pages(turkish, f"{_ROOT}/tr/text/")):
        original = originals.get(name)
        text = _translated_text(page, original, extract)
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


def _translated_text(page: _Page, original: _Page | None, extract: Extract) -> str:
    english = dict(original.blocks) if original else {}
    kept = []
    for identity, text in page.blocks:
        same = english.get(identity) == text and len(text.split()) >= _SHORT
        if same or looks_english(text):
            extract.dropped["untranslated paragraph"] += 1
        else:
            kept.append(text)
    return "\n".join(kept)


def _pages(package: Path, folder: str) -> Iterator[tuple[str, _Page]]:
    """(path below `folder`, page) of every HTML page in a `.deb`; nothing is unpacked to disk or run."""
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


def _parse(html: bytes) -> _Page | None:
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
    return _Page(
        title=clean_line(root.findtext(".//title") or ""),
        blocks=tuple((identity, text) for identity, text in blocks if text),
    )
