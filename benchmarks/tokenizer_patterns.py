"""Llama's pre-tokenisation beside the one that knows apostrophes: same text, same sizes, measured on held-out text.

    python benchmarks/tokenizer_patterns.py

Trains four byte-level BPE tokenizers on the training split of the sample corpus (fetched on the first run) and measures
them on the validation and test splits, by source: what `mecellem tokenizer compare` says, and what `prepare tokenize`
takes for the training split with each pattern. Beside them four published tokenizers, from the packages that
benchmarks/published_tokenizers.py pins, on all speeches of the sample. Writes benchmarks/results/tokenizer_patterns.md.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import ROOT, header, mecellem, sample_text
from published_tokenizers import PUBLISHED, fetch_tokenizer

from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from mecellem.manifest import read_manifest
from preprocessing.tokenizers.compare import Compared, compare_loaded
from preprocessing.tokenizers.load import load_named, load_tokenizers
from preprocessing.tokenizers.patterns import PATTERNS
from preprocessing.tokenizers.texts import read_domains

RESULTS = ROOT / "benchmarks" / "results" / "tokenizer_patterns.md"
_PACKAGES = ("tokenizers", "gigatoken", "akana")
_ALL_TEXT = 1 << 40  # bytes: no sample, all of the held-out text
_COLUMNS = {  # key -> heading, format
    "tokens_per_word": ("tokens a word", ".3f"),
    "apostrophe_words": ("words with a suffix behind an apostrophe", ",d"),
    "apostrophe_whole": ("suffix in one token", ".1%"),
    "apostrophe_tokens_per_suffix": ("tokens a suffix", ".2f"),
    "turkish_share_of_unique": ("Turkish", ".1%"),
    "pure_share_of_unique": ("pure", ".1%"),
}


def run(sizes: tuple[int, ...] = (8192, 32_768), out: Path = RESULTS) -> None:
    """Train, measure and write the results.

    Args:
        sizes: entries of the tokenizers.
        out: the file of the results.
    """
    text = sample_text()
    train = text / "train.jsonl.zst"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in sizes:
            for pattern in PATTERNS:
                target = folder / f"{pattern} {size}"
                mecellem(
                    *("tokenizer", "train", "--corpus", train, "--vocab-size", str(size)),
                    *("--pre-tokenizer", pattern, "--out", target),
                )
        tokenizers = load_tokenizers([str(folder / f"{pattern} {size}") for size in sizes for pattern in PATTERNS])
        held_out = [text / f"{split}.jsonl.zst" for split in ("validation", "test")]
        results = compare_loaded(tokenizers, read_domains(held_out, _ALL_TEXT))
        every = [text / f"{split}.jsonl.zst" for split in ("train", "validation", "test")]
        speeches = [domain for domain in read_domains(every, _ALL_TEXT) if domain.name == "ataturk"]
        published = compare_loaded([load_named(name, fetch_tokenizer(name, folder)) for name in PUBLISHED], speeches)
        writing = {pattern: _write_corpus(folder, pattern, sizes[0], train) for pattern in PATTERNS}
    content = "\n".join(
        ["# Two ways to split text before BPE", "", header(_PACKAGES), ""]
        + ["Trained on the sample's training split, measured on its validation and test splits.", ""]
        + _table(results, ("all", *results[0].figures["domains"]))
        + ["", "Published tokenizers on the speeches of all three splits:", ""]
        + _table(published, ("ataturk",))
        + ["", f"`prepare tokenize` of the training split, {sizes[0]:,} entries, start-up included:", ""]
        + ["| pattern | engine | seconds | tokens |", "|---|---|---|---|"]
        + [f"| {pattern} | {engine} | {took:.1f} | {tokens:,} |" for pattern, (engine, took, tokens) in writing.items()]
    )
    with atomic_write(out) as handle:
        handle.write(content + "\n")
    print(content)


def _table(results: Sequence[Compared], sources: Sequence[str]) -> list[str]:
    headings = ["source", "tokenizer", *(heading for heading, _ in _COLUMNS.values())]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for source in sources:
        for result in results:
            figures = result.figures["all"] if source == "all" else result.figures["domains"][source]
            cells = [_cell(figures[key], form) for key, (_, form) in _COLUMNS.items()]
            lines.append(f"| {source} | {result.tokenizer.name} | {' | '.join(cells)} |")
    return lines


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _write_corpus(folder: Path, pattern: str, size: int, train: Path) -> tuple[str, float, int]:
    prefix = folder / "written"
    started = time.perf_counter()
    mecellem("prepare", "tokenize", "--input", train, "--tokenizer", folder / f"{pattern} {size}", "--out", prefix)
    took = time.perf_counter() - started
    manifest = read_manifest(prefix)
    for path in folder.glob("written*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return " and ".join(engine.name for engine in manifest.engines), took, manifest.tokens


if __name__ == "__main__":
    parse_and_call(run, sys.argv[1:], prog="benchmarks/tokenizer_patterns.py")
