"""What `distill_e5.py` says about its students: held-out scores with their intervals, speeds, tokens a word, and the page."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import header, mecellem

from evaluation.bootstrap import RESAMPLES, redrawn_means
from evaluation.leaderboard.results import Leaderboard, TaskResult
from evaluation.results import read_record
from preprocessing.corpus.read_split import read_split

RETRIEVAL = ("LibreOfficeHelpRetrieval", "LibreOfficeHelpCrosslingualRetrieval", "AtaturkSpeechRetrieval")
BITEXT = ("ContractBitextMining", "DeclarationBitextMining")  # nothing of either was learned from
ENGLISH = "libreoffice_en_title"
ENGLISH_TEXTS = ("libreoffice_en", "wordnet_en")
FEWER_TOKENS, FASTER, KEPT, SMALLER = 0.20, 1.2, 0.98, 0.45  # what the main student is asked for
TEXTS_OF_A_SOURCE = 100
WHOLE = 256  # tokens: no text of the test split has as many, so that all models read the same
PACKAGES = ("sentence-transformers", "mteb", "tokenizers", "torch")
Items = dict[str, dict[str, float]]  # task -> item -> score


@dataclass(frozen=True, slots=True)
class Models:
    """Folders and titles by name, the teacher (`teacher`) first, then the main student; tokenizers of the students."""

    folders: dict[str, Path]
    titles: dict[str, str]
    tokenizers: dict[str, Path]

    @property
    def main(self) -> str:
        """Name of the student that the others are alternatives to."""
        return next(name for name in self.folders if name != "teacher")


@dataclass(frozen=True, slots=True)
class Measured:
    """`items`: held-out scores of every model and BM25; `english`: nDCG@10 in English; `rates`: texts/s by model and source."""

    items: dict[str, Items]
    english: dict[str, float]
    rates: dict[str, dict[str, float]]
    seconds: float


def measure(models: Models, corpus: Path, english: Path, test: Path, folder: Path, rounds: int, length: int) -> Measured:
    """Score all models, and time those that differ in what they compute."""
    kept = {document.id for document in read_split(corpus, "test")}
    turkish = score(models, ("--tasks", *RETRIEVAL, *BITEXT), folder / "turkish", lengths(models, length, 0))
    words = ("--tasks", "corpus", "--corpus", str(english), "--max-documents", "2000")
    originals = score(models, words, folder / "en", lengths(models, length, 1))
    started = time.perf_counter()
    rates = speeds(models, test, rounds)
    took = time.perf_counter() - started
    results = [result for board in (turkish, originals) for system in board.systems for result in system.tasks.values()]
    return Measured(
        {system.name: held_out(system.tasks, kept) for system in turkish.systems},
        {system.name: system.tasks[ENGLISH].main_score for system in originals.systems},
        rates,
        took + sum(result.seconds for result in results),
    )


def lengths(models: Models, length: int, language: int) -> dict[str, int]:
    """Tokens that each model reads of a text, so that all read about as many words as the main student does of `length`.

    Half of the tasks' texts are longer: at the same number of tokens a student of longer ones would read more of each, and a
    part of its score would be that. `language`: 0 for Turkish words, 1 for English ones.
    """
    of_main = fertility(models, models.main)[language]
    return {name: max(length, math.ceil(length * fertility(models, name)[language] / of_main)) for name in models.folders}


def score(models: Models, tasks: tuple[str, ...], out: Path, lengths: Mapping[str, int]) -> Leaderboard:
    """All models, and BM25, on some tasks. `lengths`: tokens that each reads."""
    named = ["bm25", *(f"{name}={path}" for name, path in models.folders.items())]
    out.mkdir(parents=True, exist_ok=True)
    own = out / "lengths.yaml"
    own.write_text("".join(f"{name}: {{max_seq_length: {length}}}\n" for name, length in lengths.items()), encoding="utf-8")
    flags = ("--encoders", own, "--text-prompt", "query: ", "--out", out, "--cache", out.parent / "cache")
    mecellem("evaluate", *named, *tasks, *flags, timeout=7200)
    return read_record(out / "results.json", Leaderboard, "run the benchmark again")


def held_out(tasks: Mapping[str, TaskResult], kept: set[str]) -> Items:
    """Scores of the items that nothing was learned from: of retrieval the queries whose document is in the test split."""
    found: Items = {}
    for name, result in tasks.items():
        assert result.per_item is not None, name
        items = {item: value for values in result.per_item.values() for item, value in values.items()}
        found[name] = {item: value for item, value in items.items() if name in BITEXT or item in kept}
        assert found[name], f"{name} has no item of the test split"
    return found


def mean(items: Items) -> float:
    """Over tasks, each the mean over its items."""
    return float(np.mean([np.mean(list(values.values())) for values in items.values()]))


def share_interval(student: Items, teacher: Items) -> tuple[float, float]:
    """95% of the student's mean over the teacher's when items are redrawn, the same for both."""
    samples = [np.array([[student[task][item], value] for item, value in teacher[task].items()]).T for task in teacher]
    means = redrawn_means(samples, RESAMPLES)
    low, high = np.percentile(means[:, 0] / means[:, 1], [2.5, 97.5])
    return float(low), float(high)


def speeds(models: Models, test: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Texts a second by model and source, as many texts of each source, models in turns; the best of the rounds.

    Whole texts, as a model that cuts them reads less of them. Each is told a batch of 32 and sorts by length itself, as a user
    of sentence-transformers has it. Students with the same tokenizer compute the same, so one of each is timed.
    """
    from sentence_transformers import SentenceTransformer

    texts: dict[str, list[str]] = {}
    for line in test.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts.setdefault(row["source"], []).append("passage: " + row["text"])
    texts = {source: found[:: max(1, len(found) // TEXTS_OF_A_SOURCE)][:TEXTS_OF_A_SOURCE] for source, found in texts.items()}
    alike = {models.tokenizers.get(name): name for name in reversed(models.folders)}  # the first of each
    loaded = {name: SentenceTransformer(str(models.folders[name]), device="cpu") for name in alike.values()}
    best: dict[str, dict[str, float]] = {name: {} for name in loaded}
    for number in range(rounds + 1):
        for source, found in texts.items():
            for name, model in loaded.items():
                model.max_seq_length = WHOLE
                started = time.perf_counter()
                model.encode(found if number else found[:32], show_progress_bar=False)
                if number:
                    rate = len(found) / (time.perf_counter() - started)
                    best[name][source] = max(best[name].get(source, 0.0), rate)
    return {name: best[alike[models.tokenizers.get(name)]] for name in models.folders}


def turkish_rate(rates: Mapping[str, float]) -> float:
    """Texts a second over all Turkish sources, as many texts of each."""
    turkish = [rate for source, rate in rates.items() if source not in ENGLISH_TEXTS]
    return len(turkish) / sum(1 / rate for rate in turkish)


def parameters(folder: Path) -> int:
    """Of the model in a folder."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="numpy") as handle:
        return sum(math.prod(handle.get_slice(name).get_shape()) for name in list(handle.keys()))


def fertility(models: Models, name: str) -> tuple[float, float]:
    """Tokens a word of held-out Turkish and English."""
    tokenizer = models.tokenizers.get(name, models.tokenizers[models.main])
    found = json.loads((tokenizer / "graft.json").read_text(encoding="utf-8"))["languages"]
    when = "after" if name in models.tokenizers else "before"
    turkish, english = (float(found[language][when]["tokens_per_word"]) for language in ("tr", "en"))
    return turkish, english


def asked(models: Models, measured: Measured) -> list[str]:
    """Whether the main student is what was asked for, a line each."""
    main, teacher = models.main, "teacher"
    fewer = 1 - fertility(models, main)[0] / fertility(models, teacher)[0]
    faster = turkish_rate(measured.rates[main]) / turkish_rate(measured.rates[teacher])
    kept = mean(measured.items[main]) / mean(measured.items[teacher])
    low, high = share_interval(measured.items[main], measured.items[teacher])
    smaller = parameters(models.folders[main]) / parameters(models.folders[teacher])
    checks = (
        (fewer >= FEWER_TOKENS, f"{fewer:.1%} fewer tokens a held-out Turkish word than the teacher", f"{FEWER_TOKENS:.0%}"),
        (faster >= FASTER, f"{faster:.2f} x the teacher's encoding speed on held-out Turkish texts", f"{FASTER} x"),
        (kept >= KEPT, f"{kept:.1%} of the teacher's held-out score ({low:.1%} to {high:.1%})", f"{KEPT:.0%}"),
        (smaller <= SMALLER, f"{smaller:.1%} of its parameters", f"at most {SMALLER:.0%}"),
    )
    return [f"- {'passed' if passed else '**failed**'}: {line}; asked: {limit}" for passed, line, limit in checks]


def report(about: str, models: Models, measured: Measured, seconds: float, recipe: str) -> str:
    """The Markdown file. `seconds`: of all that was made, without the scoring."""
    lines = ["# Distilling multilingual-e5-small", "", header(PACKAGES), "", about.split("\n\n")[2].replace("\n", " "), ""]
    lines += asked(models, measured)
    heads = ["", "parameters", "tokens a word, tr", "en", "texts/s, tr", "of the teacher's", "mean of five", "of the teacher's"]
    lines += ["", "| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    teacher = mean(measured.items["teacher"])
    for name, folder in models.folders.items():
        turkish, english = fertility(models, name)
        rate, own = turkish_rate(measured.rates[name]), mean(measured.items[name])
        faster = rate / turkish_rate(measured.rates["teacher"])
        low, high = share_interval(measured.items[name], measured.items["teacher"])
        lines.append(
            f"| {models.titles[name]} | {parameters(folder):,} | {turkish:.3f} | {english:.3f} | {rate:,.0f} | "
            f"{faster:.2f} | {own:.4f} | {own / teacher:.1%} ({low:.1%} to {high:.1%}) |"
        )
    lines += ["", "Held-out items by task (nDCG@10; share of pairs found for bitext), and English titles to English pages:", ""]
    tasks = [*RETRIEVAL, *BITEXT]
    lines += ["| | " + " | ".join([*tasks, "English"]) + " |", "|---" + "|---:" * (len(tasks) + 1) + "|"]
    lines.append("| items | " + " | ".join(f"{len(measured.items['teacher'][task]):,}" for task in tasks) + " | |")
    for name in ("bm25", *models.folders):
        cells = [
            f"{np.mean(list(values.values())):.4f}" if (values := measured.items[name].get(task)) else "–" for task in tasks
        ]
        shown = [*cells, f"{measured.english[name]:.4f}"]
        lines.append(f"| {models.titles.get(name, 'BM25')} | {' | '.join(shown)} |")
    lines += ["", f"Texts a second by source, {TEXTS_OF_A_SOURCE} texts of each at most:", ""]
    sources = list(measured.rates["teacher"])
    lines += ["| | " + " | ".join(sources) + " |", "|---" + "|---:" * len(sources) + "|"]
    for name in ("teacher", models.main):
        lines.append(
            f"| {models.titles[name]} | " + " | ".join(f"{measured.rates[name][item]:,.0f}" for item in sources) + " |"
        )
    total = (seconds + measured.seconds) / 60
    return "\n".join([*lines, "", f"The whole took {total:.0f} minutes, without the downloads. Recipe: `{recipe}`.", ""])
