"""From a run to its selection: every part measured once, the choice, the kept checkpoint loaded and scored again."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.encoders import SystemSource, find_source, open_source
from evaluation.machine import hardware_line
from evaluation.results import Record, write_record
from evaluation.selection import choice
from evaluation.selection.agreement import agreements
from evaluation.selection.parts import (
    base_source,
    baseline_scores,
    checkpoint_scores,
    post_trained,
    test_figures,
)
from evaluation.selection.results import CheckpointScores, ModelFacts, Selection, SystemScores
from evaluation.selection.settings import BUDGET, SelectionSettings
from evaluation.selection.work import Work, open_work, system_scores, test_tasks
from mecellem.console import console
from mecellem.errors import UserError
from mecellem.tokenizer_files import read_json
from megatron_recipes.retention import CHOSEN, keep
from post_training.model_folder import count_parameters

FILE = "selection.json"
TOLERANCE = 1e-3  # of a mean nDCG@10 that is computed again: sums of another order, no other model
DEFAULTS = SelectionSettings()


class Again(Record):
    """The kept checkpoint's score after loading it from the disk."""

    score: float


def select_checkpoint(
    run: Path,
    corpus: Path,
    out: Path,
    settings: SelectionSettings = DEFAULTS,
    *,
    budget: int = BUDGET,
    tasks: Sequence[str] = ("corpus",),
    steps: Sequence[int] = (),
    data: Sequence[str] = (),
    columns: Sequence[str] = (),
    split: str = "train",
    cache: Path | None = None,
    device: str = "auto",
    part: tuple[int, int] | None = None,
) -> Selection | None:
    """Measure every checkpoint of `run`, choose one, write `out/selection.json` and mark it in `run/checkpoints/keep.json`.

    Finished parts are kept in `cache` (`out/cache` unless given), so a call that was cut off goes on where it was. With `part`
    (n, m) only every m-th checkpoint from the n-th on is measured, nothing is decided and None is returned. Raises `UserError`
    for bad input, before any work, and for a kept checkpoint that changed after it was scored.
    """
    started = time.perf_counter()
    cache = cache or out / "cache"
    work = open_work(run, corpus, cache, settings, budget, tasks, steps, data, columns, split, device)
    on_test = test_tasks(work, tasks, cache)
    for item in work.selection.left_out:
        console().print(f"{item.name} is left out: {item.reason}", markup=False)
    work.selection.opened.check_new(work.board, [find_source("bm25")], work.selection.facts)
    if part is not None:
        measure_part(work, *part)
        return None
    measured = [checkpoint_scores(work, step) for step in work.checkpoints]
    rows = [row for row, _ in measured]
    baselines = baseline_scores(work)
    metric: choice.Metric = "post_trained" if budget else "mean_pooled"
    found = choice.choose(rows, baselines.get(f"random_{metric}"), metric)
    selection = Selection(
        **describe(work),
        checkpoints=rows,
        unigram=measured[0][1].unigram,
        baselines=baselines,
        **decided(work, found, rows),
        agreement=agreements(rows, metric),
        test=test_figures(work, found.best.step, on_test),
        seconds=time.perf_counter() - started,
    )
    write_record(out / FILE, selection)
    reason = f"{CHOSEN} by {selection.chosen_by}, weights {selection.best_sha256[:16]}"
    keep(Path(selection.best_checkpoint), reason, instead_of=CHOSEN)
    return selection


def parse_part(text: str) -> tuple[int, int]:
    """`3/8` -> (3, 8). Raises `UserError`."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if number >= count:
        raise UserError(
            f"--task {text} must be N/M with N from 0 to M-1, as $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT is in an array "
            "that begins with 0"
        )
    return number, count


def measure_part(work: Work, number: int, count: int) -> None:
    """Every `count`-th of the checkpoints and, as the last item, the baselines; the cache has them then."""
    items: list[int | None] = [*work.checkpoints, None]
    for step in items[number::count]:
        if step is None:
            baseline_scores(work)
        else:
            checkpoint_scores(work, step)


def describe(work: Work) -> dict[str, Any]:
    """What was measured, and on what."""
    return {
        "run": str(work.run),
        "corpus": {"folder": str(work.corpus), **work.splits},
        "data": list(work.data.origins) if work.data else [f"crops of the train split of {work.corpus}"],
        "budget": work.budget,
        "settings": asdict(work.settings) | {"post_training": asdict(work.recipe) if work.budget else None},
        "versions": work.board.versions,
        "hardware": hardware_line(work.device),
        "tasks": work.selection.facts,
        "left_out": work.selection.left_out,
    }


def decided(work: Work, found: choice.Choice, rows: Sequence[CheckpointScores]) -> dict[str, Any]:
    """The choice and, for what it chose, its files as they are on the disk now."""
    best, loss, peak = found.best, choice.lowest_loss(rows), found.peak
    embedding = Path(best.training.folder) if best.training else None
    facts = work.facts(Path(best.folder), thorough=True)
    trained = work.facts(embedding, thorough=True) if embedding else None
    scores = best.scores(found.metric)
    return {
        "metric": found.metric,
        "peak_step": peak.step if peak else None,
        "peak_tokens": peak.tokens if peak else None,
        "loss_step": loss.step,
        "loss_tokens": loss.tokens,
        "over_random": found.over_random,
        "comparisons": found.comparisons,
        "confidence": found.confidence,
        "distinguishable": found.distinguishable,
        "chosen_by": found.chosen_by,
        "best_step": best.step,
        "best_checkpoint": best.checkpoint,
        "best_folder": best.folder,
        "best_sha256": facts.weights_sha256,
        "best_embedding": str(embedding) if embedding else None,
        "best_embedding_sha256": trained.weights_sha256 if trained else None,
        "score": scores.mean if scores else None,
        "rescored": rescored(work, best.step, scores) if scores else None,
        "rule": choice.rule(found.metric),
        "sentence": found.sentence,
        "model": model_facts(Path(best.folder), facts.sha256),
    }


def rescored(work: Work, step: int, scores: SystemScores) -> float:
    """The kept checkpoint's mean, loaded and scored once more from nothing. Raises `UserError` where it is another one."""
    base = base_source(work, step)
    source = post_trained(work, base, f"step {step}")[0] if work.budget else base
    key = [work.board.key(source, facts) for facts in work.selection.facts]
    again = work.store.record("again", key, Again, lambda: Again(score=score_anew(work, source).mean)).score
    if abs(again - scores.mean) > TOLERANCE:
        raise UserError(
            f"{source.spec} scores {again:.4f} after loading it again, {scores.mean:.4f} before: remove {work.store.folder} "
            "and run the same command again"
        )
    return again


def score_anew(work: Work, source: SystemSource) -> SystemScores:
    """All of the selection's tasks by a model that is loaded now; no score from the cache takes part."""
    from evaluation.leaderboard.scoring import score

    console().print(f"{source.name}, loaded again", markup=False)
    board, tasks = work.board, work.selection
    system = open_source(source, device=board.device, settings=board.settings)
    return system_scores({facts.name: score(system, tasks.opened[facts.name], facts, board.device) for facts in tasks.facts})


def model_facts(folder: Path, sha256: str) -> ModelFacts:
    """What a model's folder says about itself."""
    config = read_json(folder / "config.json")
    verification = folder / "verification.json"
    return ModelFacts(
        folder=str(folder),
        sha256=sha256,
        parameters=count_parameters(folder),
        vocabulary=config["vocab_size"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        verification=read_json(verification) if verification.exists() else None,
    )
