"""`mecellem tokenizer report`: one self-contained HTML page about one tokenizer."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.console import step
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from mecellem.page import csv_uri
from mecellem.page import render as render_page
from mecellem.page.figure_data import figure_csv
from preprocessing.stages.lexicon import check_analyser
from preprocessing.tokenizers.compare import Compared, compare_loaded
from preprocessing.tokenizers.texts import SAMPLE_BYTES, check_texts, read_domains

if TYPE_CHECKING:
    from preprocessing.tokenizers.load import Entry, NamedTokenizer

_SHOWN = 60  # entries of a list
_LONG_VALUES = ("precompiled_charsmap", "special_tokens")
_JAPANESE = {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"}  # written together


def report(tokenizer: str, texts: list[Path], out: Path, sample_bytes: int = SAMPLE_BYTES) -> None:
    """Write a page about one tokenizer: its parts, its vocabulary, and what it does with texts, by source.

    Args:
        tokenizer: a folder with a tokenizer.json, a .json file or .tiktoken ranks, PATH or NAME=PATH.
        texts: .jsonl, .jsonl.gz or .jsonl.zst files, one {"text": ...} a line; "source" names the domain.
        out: the page, an .html file; an older one is replaced.
        sample_bytes: measure on about so many bytes of text, as equal parts of each source as there is text for.
    """
    from preprocessing.tokenizers.load import load_tokenizers

    check_texts(texts, sample_bytes)
    check_analyser("akana")
    with step("Tokenizer report", reads=[tokenizer, *texts], writes=[out]) as console:
        [loaded] = load_tokenizers([tokenizer])
        for note in loaded.notes:
            console.print(note, markup=False)
        [compared] = compare_loaded([loaded], read_domains(texts, sample_bytes))
        page = render(compared)
        with atomic_write(out) as handle:
            handle.write(page)


def unreachable(tokenizer: NamedTokenizer) -> list[Entry]:
    """Entries that no text gives: their own text is normalised away, split, or made of other entries.

    Byte-level: whole characters are encoded as a text is; entries that are parts of characters, and all entries of other
    vocabularies, are given to the model as they are spelled, because a normalizer may put a space before every text.
    """
    engine = tokenizer.tokenizer
    byte_level = tokenizer.vocabulary_kind == "byte-level"
    candidates = [entry for entry in tokenizer.entries.values() if not entry.added]
    whole = [entry for entry in candidates if byte_level and entry.text is not None]
    texts = [f"{' ' if entry.starts_word else ''}{entry.text}" for entry in whole]
    encoded = engine.encode_batch_fast(texts, add_special_tokens=False)
    found = [entry for entry, encoding in zip(whole, encoded, strict=True) if encoding.ids != [entry.id]]
    for entry in candidates:
        if entry.single_byte or (byte_level and entry.text is not None):
            continue  # a single byte is what remains where nothing else fits
        tokens = engine.model.tokenize(entry.piece.removeprefix("##"))
        if tokenizer.vocabulary_kind != "wordpiece" and [token.id for token in tokens] != [entry.id]:
            found.append(entry)
    return sorted(found, key=lambda entry: entry.id)


def scripts(text: str) -> set[str]:
    """The scripts of a text's letters, by their Unicode names: LATIN, CYRILLIC, GREEK, ...; Japanese writes three as one."""
    names = (unicodedata.name(letter, "").split(" ")[0] for letter in text if letter.isalpha())
    return {"CJK" if name in _JAPANESE else name for name in names if name and name not in ("MODIFIER", "MATHEMATICAL")}


def render(compared: Compared) -> str:
    """The page's HTML."""
    from preprocessing.tokenizers.plots import lengths, svg

    tokenizer = compared.tokenizer
    entries = [entry for entry in tokenizer.entries.values() if not entry.added]
    uses = compared.whole.uses
    used = [entry for entry in entries if uses[entry.id]]
    never = [entry for entry in entries if not uses[entry.id]]
    mixed = [entry for entry in entries if entry.text and len(scripts(entry.text)) > 1]
    unreached = unreachable(tokenizer)
    longest = sorted((entry for entry in entries if entry.text), key=lambda entry: (-len(entry.text or ""), entry.id))
    letters = [entry for entry in longest if (entry.text or "").isalpha()]
    frequent = sorted(used, key=lambda entry: (-int(uses[entry.id]), entry.id))[:_SHOWN]
    figure = lengths(_by_length(entries), _by_length(used))
    return render_page(
        Path(__file__).parent / "page.html.j2",
        title=f"Tokenizer {compared.figures['name']}",
        over="mecellem tokenizer report",
        heading=compared.figures["name"],
        headline=headline(compared.figures),
        tiles=tiles(compared.figures),
        figures=compared.figures,
        rows={"all": compared.figures["all"]} | compared.figures["domains"],
        parts=parts(tokenizer.settings),
        kind=tokenizer.vocabulary_kind,
        lists=[
            ("Longest of letters alone", len(letters), "by characters", _shown(tokenizer, letters)),
            ("Most frequent", len(used), "entries that the texts use, the most frequent first", _shown(tokenizer, frequent)),
            ("Longest entries", len(longest), "by characters", _shown(tokenizer, longest)),
            ("Never used", len(never), "by these texts, the last entries first", _shown(tokenizer, never[::-1])),
            ("Several scripts in one entry", len(mixed), "", _shown(tokenizer, mixed)),
            ("Unreachable", len(unreached), "their own text does not give them", _shown(tokenizer, unreached)),
        ],
        added=[tokenizer.entries[number].piece for number in tokenizer.entries if tokenizer.entries[number].added],
        figure={"svg": svg(figure), "csv": csv_uri(figure_csv(figure))},
    )


def headline(figures: dict[str, Any]) -> str:
    """Fertility and the Turkish part of the vocabulary in a sentence."""
    whole, vocabulary = figures["all"], figures["vocabulary"]
    per_word = "-" if whole["tokens_per_word"] is None else f"{whole['tokens_per_word']:.3f}"
    per_token = "-" if whole["bytes_per_token"] is None else f"{whole['bytes_per_token']:.2f}"
    return (
        f"{per_word} tokens a word and {per_token} bytes a token on {whole['words']:,} words; "
        f"{vocabulary['turkish_tokens']:,} of {vocabulary['entries']:,} entries are Turkish words, roots or suffixes."
    )


def tiles(figures: dict[str, Any]) -> list[dict[str, str]]:
    """Size and use of the vocabulary."""
    whole, vocabulary = figures["all"], figures["vocabulary"]
    used = "-" if whole["vocabulary_used"] is None else f"{whole['vocabulary_used']:.1%}"
    found = [
        ("entries", f"{vocabulary['entries']:,}", f"{vocabulary['added_tokens']:,} of them added"),
        ("used by these texts", used, f"{whole['unique_tokens']:,} entries"),
        ("Turkish entries", f"{vocabulary['turkish_tokens']:,}", "over the vocabulary"),
        ("pure entries", f"{vocabulary['pure_tokens']:,}", "one whole root or suffix"),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in found]


def parts(settings: dict[str, Any]) -> dict[str, list[str]]:
    """Normalizer, pre-tokenizer, model, post-processor and decoder, each as the steps that it is made of."""
    model = settings["model"]
    merges = f", {len(model['merges']):,} merges" if "merges" in model else ""
    options = [name for name in ("byte_fallback", "ignore_merges", "fuse_unk") if model.get(name)]
    described = {name: _steps(settings.get(name)) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")}
    return described | {"model": [f"{model.get('type', 'BPE')}, {len(model['vocab']):,} entries{merges}", *options]}


def _steps(part: dict[str, Any] | None) -> list[str]:
    if part is None:
        return ["none"]
    inner = part.get("normalizers") or part.get("pretokenizers") or part.get("processors") or part.get("decoders")
    if inner is not None:
        return [step for item in inner for step in _steps(item)]
    options = [
        f"{key}={next(iter(value.values()), '') if isinstance(value, dict) else value}"
        for key, value in part.items()
        if key not in ("type", *_LONG_VALUES) and isinstance(value, str | int | dict)
    ]
    return [f"{part['type']}({', '.join(options)})"]


def _shown(tokenizer: NamedTokenizer, entries: Sequence[Entry]) -> list[str]:
    return [tokenizer.shown(entry.id) for entry in entries[:_SHOWN]]


def _by_length(entries: Sequence[Entry]) -> dict[int, int]:
    return dict(sorted(Counter(min(len(entry.text), 32) for entry in entries if entry.text).items()))


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem tokenizer report` and run it."""
    parse_and_call(report, argv, prog="mecellem tokenizer report")
    return 0
