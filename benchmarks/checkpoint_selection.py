"""Does retrieval peak before the loss is lowest, and from which budget on is pre-training worth anything for retrieval?

    python benchmarks/checkpoint_selection.py

A ModernBERT of `mursit_tiny`'s shape is pre-trained from random weights on the sample corpus, with a checkpoint every million
tokens. `mecellem select` then gives eight of them, and random weights of the same shape, the same contrastive training on
definitions with their examples (KeNet) and titles with their pages (LibreOffice's help) of the train split, at several
numbers of steps and learning rates, and scores all on held-out texts. BM25, multilingual-e5-small and the Universal Sentence
Encoder stand beside them. What is done is kept: a call that was stopped goes on.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import CACHE, PACKAGES, ROOT, header, mecellem
from real_models import e5_small_folder

from evaluation.drawing import LIGHT, new_figure, png, styled
from evaluation.leaderboard.results import Leaderboard
from evaluation.results import read_record
from evaluation.selection.choice import compare
from evaluation.selection.results import CheckpointScores, Comparison, Selection, SystemScores
from evaluation.tasks.pools import dictionary_examples, titled_texts
from mecellem.doctor import emulates_bf16
from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from preprocessing.corpus.read_split import read_split

FOLDER = CACHE / "checkpoint_selection"
STEP_TOKENS = 4_096  # of mursit_tiny
INTERVAL = 245  # steps between checkpoints, about a million tokens
SHOWN = 8  # checkpoints that are scored
BASELINES = {"bm25": "BM25", "e5-small": "multilingual-e5-small", "use": "USE"}


@dataclass(frozen=True, slots=True)
class Budget:
    """One post-training: optimiser steps and peak learning rate."""

    steps: int
    lr: float

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.steps} steps, lr {self.lr:g}"

    @classmethod
    def read(cls, words: str) -> Budget:
        """Of `STEPS@LR`. Raises `UserError`."""
        try:
            steps, lr = words.split("@")
            return cls(int(steps), float(lr))
        except ValueError:
            raise UserError(f"--budgets {words!r} is not STEPS@LR, such as 300@5e-4") from None


def shown(tokens: int) -> list[int]:
    """Steps of the checkpoints that are scored: closer together at the beginning, where more changes. Raises `UserError`."""
    every = tokens // (INTERVAL * STEP_TOKENS)
    if every < SHOWN:
        raise UserError(f"--tokens must be at least {SHOWN * INTERVAL * STEP_TOKENS:,}: {SHOWN} checkpoints are scored")
    numbers = [1]
    for place in range(1, SHOWN):
        numbers.append(max(numbers[-1] + 1, round(1 + (every - 1) * (place / (SHOWN - 1)) ** 1.6)))
    return [number * INTERVAL for number in numbers]


def make_corpus() -> Path:
    """The sample with LibreOffice's help, its tokenizer and tokens, by the commands that users run."""
    corpus, tokenizer = FOLDER / "corpus", FOLDER / "tokenizer"
    if not (corpus / "corpus.json").exists():
        mecellem("corpus", "fetch", "--sample", "--libreoffice", "yes", "--out", corpus, "--cache", PACKAGES)
    if not tokenizer.exists():
        held_out = corpus / "validation.jsonl.zst"
        words = ("--held-out", held_out, "--vocab-size", "8192", "--model-max-length", "512", "--out", tokenizer)
        mecellem("tokenizer", "train", "--corpus", corpus / "train.jsonl.zst", *words)
    for split in ("train", "validation"):
        prefix = FOLDER / "tokens" / split
        if not prefix.with_name(f"{split}.manifest.json").exists():
            text = corpus / f"{split}.jsonl.zst"
            mecellem("prepare", "tokenize", "--input", text, "--tokenizer", tokenizer, "--out", prefix, "--replace")
    return corpus


def pre_train(tokens: int, ranks: int, hours: float) -> Path:
    """The run, with checkpoints every million tokens."""
    run = FOLDER / f"run_{tokens}"
    inputs = {"tokenizer": FOLDER / "tokenizer", "train": FOLDER / "tokens/train", "validation": FOLDER / "tokens/validation"}
    flags = [str(word) for name, path in inputs.items() for word in (f"--data.{name}", path.relative_to(ROOT))]
    flags += ["--schedule.train-tokens", str(tokens), "--schedule.warmup-tokens", str(tokens // 20)]
    flags += ["--schedule.decay-tokens", str(tokens // 5)]
    flags += ["--checkpoint-interval", str(INTERVAL), "--validation-interval", str(INTERVAL), "--nproc", str(ranks)]
    if emulates_bf16():
        flags += ["--precision", "fp32"]
    if not (run / "finished.json").exists():
        words: list[str | Path] = ["train", "mursit_tiny", "--out", run.relative_to(ROOT), *flags]
        mecellem(*words, timeout=hours * 3600, threads=1)
    return run


def write_pairs(corpus: Path) -> tuple[Path, int]:
    """The training pairs of the two sources, as a file; and how many."""
    documents, out, count = read_split(corpus, "train"), FOLDER / "pairs.jsonl", 0
    with atomic_write(out) as handle:
        for source, find in (("kenet", dictionary_examples), ("libreoffice", titled_texts)):
            queries, texts = find([document for document in documents if document.source == source])
            for key, query in queries.items():
                handle.write(json.dumps({"anchor": query, "positive": texts[key]}, ensure_ascii=False) + "\n")
                count += 1
    return out, count


def measure(run: Path, corpus: Path, pairs: Path, budget: Budget, length: int, steps: Sequence[int], hours: float) -> Selection:
    """`mecellem select` at one budget."""
    out = FOLDER / "selections" / f"{run.name}_{budget.steps}_{budget.lr:g}"
    words: list[str | Path] = ["--corpus", corpus, "--data", pairs, "--steps", *map(str, steps)]
    words += ["--budget", str(budget.steps), "--lr", str(budget.lr), "--train-seq-length", str(length)]
    mecellem("select", run, *words, "--out", out, "--cache", FOLDER / "selections" / "cache", timeout=hours * 3600)
    return read_record(out / "selection.json", Selection, "run the benchmark again")


def measure_baselines(corpus: Path) -> Leaderboard:
    """What needs no training, on the same validation tasks."""
    out = FOLDER / "baselines"
    models = ["bm25", f"e5-small={e5_small_folder(CACHE)}", "use"]
    words = ("--tasks", "corpus", "--corpus", corpus, "--split", "validation")
    mecellem("evaluate", *models, *words, "--out", out, "--cache", FOLDER / "selections" / "cache", timeout=3600)
    return read_record(out / "results.json", Leaderboard, "run the benchmark again")


def retrieval(row: CheckpointScores) -> SystemScores:
    """A checkpoint after post-training."""
    assert row.post_trained is not None
    return row.post_trained


def against_random(selection: Selection) -> dict[int, Comparison]:
    """Every checkpoint less random weights that had the same training, by its step; 95% over all of them (Bonferroni)."""
    random, confidence = selection.baselines["random_post_trained"], 1 - 0.05 / len(selection.checkpoints)
    return {row.step: compare(retrieval(row), random, row.step, confidence) for row in selection.checkpoints}


def curve(selection: Selection) -> list[str]:
    """A line a checkpoint."""
    random = selection.baselines["random_post_trained"].mean
    rows = ["| tokens | fill-mask loss | masks filled | mean-pooled | post-trained | less random (95% over all rows) |"]
    rows += ["|---|---|---|---|---|---|"]
    rows.append(f"| 0 (random) | | | {selection.baselines['random_mean_pooled'].mean:.3f} | {random:.3f} | |")
    differences = against_random(selection)
    for row in selection.checkpoints:
        found, pooled = differences[row.step], row.mean_pooled
        assert row.tokens is not None and pooled is not None
        low, high = found.interval
        masks = row.fill_mask.all
        rows.append(
            f"| {row.tokens / 1e6:.1f}M | {masks.nll:.3f} | {masks.top1:.1%} | {pooled.mean:.3f} | {retrieval(row).mean:.3f} | "
            f"{found.difference:+.3f} ({low:+.3f} to {high:+.3f}){' **' if found.real else ''} |"
        )
    return rows


def smallest(selections: dict[Budget, Selection]) -> list[str]:
    """From how many tokens on pre-training is above random weights, for each budget."""
    lines = []
    for budget, selection in selections.items():
        differences = against_random(selection)
        above = [row for row in selection.checkpoints if differences[row.step].real and differences[row.step].difference > 0]
        below = [row for row in selection.checkpoints if differences[row.step].real and differences[row.step].difference < 0]
        rows = sorted(selection.checkpoints, key=lambda row: row.step)
        stay = list(itertools.takewhile(above.__contains__, reversed(rows)))
        if stay:
            lines.append(f"- {budget.name}: above random weights from {(stay[-1].tokens or 0) / 1e6:.1f}M tokens on")
        elif above:
            some = ", ".join(f"{(row.tokens or 0) / 1e6:.1f}M" for row in above)
            lines.append(f"- {budget.name}: above random weights at {some} tokens only, and not at the last")
        else:
            rest = f", below them at {len(below)} of {len(selection.checkpoints)} checkpoints" if below else ""
            lines.append(f"- {budget.name}: never above random weights{rest}")
    return lines


def draw(selections: dict[Budget, Selection], board: Leaderboard) -> bytes:
    """Post-trained retrieval over pre-training tokens, a line a budget, random weights at 0."""
    with styled(LIGHT):
        figure, axes = new_figure(8, 4.5)
        for budget, selection in selections.items():
            tokens = [0.0, *((row.tokens or 0) / 1e6 for row in selection.checkpoints)]
            values = [selection.baselines["random_post_trained"].mean, *(retrieval(row).mean for row in selection.checkpoints)]
            axes.plot(tokens, values, marker="o", label=budget.name)
        for name, title in BASELINES.items():
            value = board_mean(board, name)
            axes.axhline(value, linestyle="--", linewidth=1, color=LIGHT.baseline)
            axes.annotate(title, (0, value), (0, 3), textcoords="offset points", fontsize=8, color=LIGHT.quiet)
        axes.set(xlabel="pre-training, million tokens (0: random weights)", ylabel="nDCG@10, mean of held-out tasks")
        axes.legend()
        return png(figure)


def board_mean(board: Leaderboard, name: str) -> float:
    """Mean main score of a system over all tasks."""
    tasks = next(system for system in board.systems if system.name == name).tasks
    return sum(result.main_score for result in tasks.values()) / len(tasks)


def report(selections: dict[Budget, Selection], board: Leaderboard, notes: Sequence[str], picture: str) -> list[str]:
    """The Markdown file's lines; `picture` lies beside it."""
    lines = ["# Choosing checkpoints", "", header(("sentence-transformers", "mteb", "torch", "megatron-core")), "", *notes, ""]
    tasks = [f"{task.name} ({task.items} queries)" for task in board.tasks]
    means = [f"{title} {board_mean(board, name):.3f}" for name, title in BASELINES.items()]
    lines += [f"Held out: {', '.join(tasks)}. Mean nDCG@10 there: {', '.join(means)}.", ""]
    lines += [f"![retrieval over tokens]({picture})", ""]
    lines += ["Is pre-training worth anything?", "", *smallest(selections), ""]
    for budget, selection in selections.items():
        lines += [f"## {budget.name}", "", *curve(selection), "", selection.sentence, ""]
        lines += [f"Retrieval peaks at step {selection.peak_step}, the fill-mask loss is lowest at step {selection.loss_step}."]
        lines += [item.sentence for item in selection.agreement]
        lines += [""]
    return lines


def checkpoint_selection(
    tokens: int = 24_000_000,
    budgets: tuple[str, ...] = ("60@5e-4", "300@5e-4", "60@2e-4", "60@1e-3"),
    length: int = 32,
    ranks: int = 2,
    hours: float = 6,
    out: Path = ROOT / "benchmarks" / "results" / "checkpoint_selection.md",
) -> None:
    """Pre-train once, post-train eight checkpoints and random weights at every budget, and say what is seen.

    Args:
        tokens: of the pre-training
        budgets: of the post-trainings, STEPS@LR: optimiser steps and peak learning rate
        length: tokens of a text in post-training
        ranks: data-parallel ranks of the pre-training
        hours: time limit of a single command
        out: Markdown file for the results; the picture lies beside it
    """
    scored = shown(tokens)
    wanted = [Budget.read(words) for words in budgets]
    corpus = make_corpus()
    pairs, count = write_pairs(corpus)
    run = pre_train(tokens, ranks, hours)
    board = measure_baselines(corpus)
    selections = {budget: measure(run, corpus, pairs, budget, length, scored, hours) for budget in wanted}
    notes = [f"{tokens / 1e6:.0f}M tokens of pre-training; {count:,} pairs, batches of 64, texts of {length} tokens."]
    picture = out.with_suffix(".png")
    with atomic_write(picture, "wb") as handle:
        handle.write(draw(selections, board))
    with atomic_write(out) as handle:
        handle.write("\n".join(report(selections, board, notes, picture.name)))


if __name__ == "__main__":
    parse_and_call(checkpoint_selection, sys.argv[1:], "python benchmarks/checkpoint_selection.py")
