"""A whole evaluation: every local task for an encoder of 10 million parameters, and the same command once more.

    python benchmarks/local_suite.py

The encoder (the ModernBERT of `encode_order.py`, random weights) and BM25 do the tasks of the sample corpus and the local ones
by the command that users run; its weights do not matter for the time. Texts are cut at the 512 tokens that mursit_tiny and
multilingual-e5-small read; with `--length 2048` the encoder reads as far as it can. Wall time of the two calls from start to
end: the first reads, encodes and scores everything, the second finds all scores kept. What the tasks are read from is fetched
before.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from common import CACHE, ROOT, header, mecellem, sample, sample_text
from encode_order import write_model

from evaluation.leaderboard.results import Leaderboard
from evaluation.results import read_record
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call


def call(words: list[str | Path], out: Path, threads: int | None) -> tuple[float, Leaderboard]:
    """Seconds of one `mecellem evaluate`, and what it wrote."""
    started = time.perf_counter()
    mecellem("evaluate", *words, "--out", out, threads=threads, timeout=3600)
    return time.perf_counter() - started, read_record(out / "results.json", Leaderboard, "")


def table(model: str, first: float, again: float, board: Leaderboard) -> list[str]:
    """The two calls, and the seconds of each task in the first."""
    system = next(system for system in board.systems if system.name == model)
    assert system.facts is not None, "an encoder has facts"
    texts = sum(result.texts for result in system.tasks.values())
    lines = [
        f"{len(board.tasks)} tasks, {texts:,} texts encoded, an encoder of {system.facts.parameters:,} parameters, and BM25. "
        f"Texts are cut at {system.facts.max_seq_length:,} tokens.",
        "",
        "| | seconds |",
        "|---|---|",
        f"| first call | {first:.1f} |",
        f"| the same again | {again:.1f} |",
        "",
        "| task | category | texts | of them cut | seconds of the encoder |",
        "|---|---|---|---|---|",
    ]
    for facts in board.tasks:
        result = system.tasks[facts.name]
        lines.append(f"| {facts.name} | {facts.category} | {result.texts:,} | {result.truncated:.0%} | {result.seconds:.1f} |")
    return lines


def local_suite(
    tasks: list[str] = ["corpus", "local"],  # noqa: B006 - tyro shows it as the default; nothing changes it
    tiny: bool = False,
    length: int = 512,
    threads: int | None = None,
    out: Path = ROOT / "benchmarks" / "results" / "local_suite.md",
) -> None:
    """Time the command, print the table and write it to a file.

    Args:
        tasks: names of tasks or groups
        tiny: a model of two small layers
        length: tokens of a text that are read
        threads: of the command's process (default: as the machine has cores)
        out: Markdown file for the results
    """
    tokenizer, corpus, cache = sample()[1], sample_text(), CACHE / "local_suite"
    if "local" in tasks:
        mecellem("evaluate", "prefetch", "--tasks", "local", "--cache", cache, timeout=3600)
    shutil.rmtree(cache / "evaluation", ignore_errors=True)  # what an earlier call of this benchmark has scored
    with tempfile.TemporaryDirectory() as name:
        model, folder = Path(name) / "encoder", Path(name) / "out"
        write_model(model, tokenizer, tiny)
        words: list[str | Path] = [model, "--corpus", corpus, "--cache", cache, "--device", "cpu", "--tasks", *tasks]
        words += ["--max-seq-length", str(length)]
        first, board = call(words, folder, threads)
        again, _ = call(words, folder, threads)
    lines = ["# Evaluation on the local tasks", "", header(("torch", "transformers", "sentence-transformers", "mteb")), ""]
    text = "\n".join([*lines, *table(model.name, first, again, board)]) + "\n"
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)


if __name__ == "__main__":
    parse_and_call(local_suite, sys.argv[1:], "python benchmarks/local_suite.py")
