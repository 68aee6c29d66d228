"""`mecellem tokenizer compare`: any tokenizers on any texts, by domain: a table, a plot and a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import atomic_folder, check_output_folder
from mecellem.flags import parse_and_call
from preprocessing.jsonl import fingerprint
from preprocessing.stages.lexicon import check_analyser
from preprocessing.tokenizers.measure import Measures, casing_probes, measure, ratios, total, vocabulary_figures
from preprocessing.tokenizers.texts import SAMPLE_BYTES, check_texts, read_domains

if TYPE_CHECKING:
    from rich.table import Table

    from preprocessing.tokenizers.load import NamedTokenizer
    from preprocessing.tokenizers.measure import Domain
    from preprocessing.tokenizers.morphemes import Morphemes

_ENTRIES = {"entries": "entries", "turkish_tokens": "of them Turkish", "pure_tokens": "of them pure"}
_FIGURES = {  # key -> heading, format
    "tokens_per_word": ("tokens a word", ".3f"),
    "bytes_per_token": ("bytes a token", ".2f"),
    "characters_per_token": ("characters a token", ".2f"),
    "vocabulary_used": ("vocabulary used", ".1%"),
    "single_byte_share": ("single bytes", ".2%"),
    "unknown_share": ("unknown", ".3%"),
    "turkish_share_of_unique": ("Turkish", ".1%"),
    "pure_share_of_unique": ("pure", ".1%"),
    "apostrophe_whole": ("suffix whole", ".1%"),
    "capitals_cost": ("capitals cost", ".2f"),
    "exact_documents": ("exact", ".1%"),
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One tokenizer's figures: `figures` is what compare.json has, `uses` counts entries over all texts."""

    tokenizer: NamedTokenizer
    figures: dict[str, Any]
    whole: Measures

    @property
    def speed(self) -> float:
        """Megabytes of text encoded a second, wall time."""
        return self.whole.bytes / 1e6 / max(self.whole.seconds, 1e-9)


def compare(
    tokenizers: list[str],
    texts: list[Path],
    out: Path,
    sample_bytes: int = SAMPLE_BYTES,
    replace: bool = False,
) -> None:
    """Compare tokenizers on texts, by source, and write compare.json, compare.svg and compare.png.

    Turkish and pure: shares of the different tokens of a text that are Turkish words or suffixes, and that are one whole
    root or one whole suffix, as akana knows them; compare.json also counts both over each vocabulary. Suffix whole: of
    words like "Yargıtay'ın", how many have their suffix in one token. Capitals cost: tokens of words in capitals by those
    of the same words in small letters. Exact: documents that decode to themselves.

    Args:
        tokenizers: folders with a tokenizer.json, .json files or .tiktoken ranks, each PATH or NAME=PATH.
        texts: .jsonl, .jsonl.gz or .jsonl.zst files, one {"text": ...} a line; "source" names the domain.
        out: folder to write to, new or empty.
        sample_bytes: measure on about so many bytes of text, as equal parts of each source as there is text for.
        replace: put the new comparison in the place of an older one.
    """
    from preprocessing.tokenizers.load import load_tokenizers

    check_texts(texts, sample_bytes)
    check_analyser("akana")
    check_output_folder(out, "--out")
    if not tokenizers:
        raise UserError("--tokenizers names none: give one or more folders, .json files or .tiktoken files")
    if replace and out.exists() and not (out / "compare.json").is_file():
        raise UserError(f"--replace: {out} holds no compare.json, so it is not removed: choose another --out")
    with step("Tokenizers compared", reads=[*tokenizers, *texts], writes=[out]) as console:
        with atomic_folder(out, replace and out.exists(), remedy="add --replace") as folder:
            loaded = load_tokenizers(tokenizers)
            for note in (note for tokenizer in loaded for note in tokenizer.notes):
                console.print(note, markup=False)
            domains = read_domains(texts, sample_bytes)
            results = compare_loaded(loaded, domains)
            _write(folder, results, domains, {"texts_sha256": fingerprint(texts), "sample_bytes": sample_bytes})
        console.print(table(results))
        for key in ("tokens_per_word", "apostrophe_whole") if len(domains) > 1 else ():
            console.print(table_by_source(results, key))


def compare_loaded(tokenizers: Sequence[NamedTokenizer], domains: Sequence[Domain]) -> list[Compared]:
    """Measure each tokenizer on each domain and on all."""
    from preprocessing.tokenizers.morphemes import Morphemes

    morphemes = Morphemes()
    return [_compared(tokenizer, domains, morphemes) for tokenizer in tokenizers]


def _compared(tokenizer: NamedTokenizer, domains: Sequence[Domain], morphemes: Morphemes) -> Compared:
    parts = {domain.name: measure(tokenizer, domain) for domain in domains}
    whole = total(list(parts.values()))
    figures = {
        "name": tokenizer.name,
        "sha256": tokenizer.sha256,
        "notes": list(tokenizer.notes),
        "vocabulary": vocabulary_figures(tokenizer, morphemes),
        "casing": casing_probes(tokenizer),
        "all": ratios(tokenizer, whole, morphemes),
        "domains": {name: ratios(tokenizer, part, morphemes) for name, part in parts.items()},
    }
    return Compared(tokenizer, figures, whole)


def table(results: Sequence[Compared]) -> Table:
    """The figures of all texts, a column a tokenizer: a row fits any terminal."""
    shown = _empty_table("all texts", results)
    for key, (heading, form) in _FIGURES.items():
        shown.add_row(heading, *(_cell(result.figures["all"][key], form) for result in results))
    for key, heading in _ENTRIES.items():
        shown.add_row(heading, *(f"{result.figures['vocabulary'][key]:,}" for result in results))
    shown.add_row("MB/s", *(f"{result.speed:.1f}" for result in results))
    return shown


def table_by_source(results: Sequence[Compared], key: str) -> Table:
    """One figure, a row a source; compare.json has all of them by source."""
    heading, form = _FIGURES[key]
    shown = _empty_table(f"{heading}, by source", results)
    for domain in results[0].figures["domains"]:
        shown.add_row(domain, *(_cell(result.figures["domains"][domain][key], form) for result in results))
    return shown


def _empty_table(title: str, results: Sequence[Compared]) -> Table:
    from rich.table import Table

    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for result in results:
        shown.add_column(result.tokenizer.name, justify="right", overflow="fold")
    return shown


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _write(folder: Path, results: Sequence[Compared], domains: Sequence[Domain], made_from: dict[str, Any]) -> None:
    """No times and no paths go into the files: the same input gives the same bytes."""
    from preprocessing.tokenizers.plots import compared, save

    described = {
        domain.name: {"documents": len(domain.texts), "words": domain.words, "bytes": domain.bytes} for domain in domains
    }
    content = made_from | {
        "akana": version("akana"),
        "domains": described,
        "tokenizers": [result.figures for result in results],
    }
    (folder / "compare.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    save(compared([result.figures for result in results]), folder / "compare")


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem tokenizer compare` and run it."""
    parse_and_call(compare, argv, prog="mecellem tokenizer compare")
    return 0
