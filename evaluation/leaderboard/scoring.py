"""One system on one task, by mteb's own evaluator, with the score of every single item where there is one."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.bootstrap import mean_interval
from evaluation.encoders.base import Counts, Encoder
from evaluation.encoders.bm25 import Bm25
from evaluation.leaderboard.adapters import Found, MtebBm25, MtebEncoder, MtebSearch
from evaluation.leaderboard.results import Interval, TaskResult
from evaluation.machine import hardware_line
from evaluation.tasks.facts import TaskFacts
from mecellem.errors import UserError

PerItem = dict[str, dict[str, float]]
LOADER_ROWS = 1024  # texts that mteb hands over at a time; batches are made of all of them
RETRIEVAL = "ndcg_at_10"


@contextmanager
def quiet() -> Iterator[None]:
    """Without mteb's progress bars, which go to standard error one over the other."""
    with redirect_stderr(StringIO()):
        yield


def score(system: Encoder | Bm25, task: Any, facts: TaskFacts, device: str) -> TaskResult:
    """Run a loaded task. Raises `UserError` for vectors, or a score, that are no numbers."""
    started = time.perf_counter()
    before = Counts() if isinstance(system, Bm25) else system.counts.copy()
    with tempfile.TemporaryDirectory(prefix="mecellem-") as folder:
        model, found = adapter(system, facts)
        predictions = None if found is not None else Path(folder)
        with quiet():
            results = {split: evaluate_split(task, model, split, predictions) for split in task.eval_splits}
        metric, per_item = None, None
        if found is not None:
            metric, per_item = RETRIEVAL, ndcg_by_query(task, found)
        elif facts.category == "bitext":
            metric, per_item = "accuracy", correct_pairs(task, Path(folder))
    counts = Counts() if isinstance(system, Bm25) else system.counts.since(before)
    scores = averaged([found for split in results.values() for found in split.values()])
    main = scores.get("main_score", math.nan)
    if not math.isfinite(main):
        raise UserError(
            f"{facts.name}: {facts.main_metric} of this model is no number, as where the vectors of all texts are the same or "
            "the task has too few items: leave the task out (--tasks), or mend the model"
        )
    check_agreement(scores, metric, per_item)
    return TaskResult(
        task=facts.name,
        category=facts.category,
        revision=facts.revision,
        main_metric=facts.main_metric,
        main_score=main,
        metrics={name: value for name, value in scores.items() if name != "main_score" and not name.startswith("nauc")},
        per_item_metric=metric,
        per_item=per_item,
        interval=interval(per_item) if metric == facts.main_metric else None,
        items=sum(map(len, per_item.values())) if per_item is not None else facts.items or items(task),
        texts=counts.texts,
        empty=counts.empty,
        truncated=counts.truncated / counts.texts if counts.texts else 0.0,
        tokens_cut=counts.tokens_cut,
        seconds=time.perf_counter() - started,
        hardware=hardware_line(device),
    )


def adapter(system: Encoder | Bm25, facts: TaskFacts) -> tuple[Any, Found | None]:
    """The system as mteb takes it, and where what it retrieves will be kept."""
    if isinstance(system, Bm25):
        ranker = MtebBm25(system)
        return ranker, ranker.found
    encoder = MtebEncoder(system)
    if facts.category != "retrieval":
        return encoder, None
    search = MtebSearch(encoder)
    return search, search.found


def evaluate_split(task: Any, model: Any, split: str, predictions: Path | None) -> Mapping[str, Mapping[str, Any]]:
    """Mteb's scores of one split by subset."""
    keywords: Any = {"batch_size": LOADER_ROWS, "show_progress_bar": False}
    found: Mapping[str, Mapping[str, Any]] = task.evaluate(model, split, encode_kwargs=keywords, prediction_folder=predictions)
    return found


def averaged(results: list[Mapping[str, Any]]) -> dict[str, float]:
    """Every number over subsets and splits, each weighed alike, as mteb's TaskResult.get_score does."""
    names = [name for name, value in results[0].items() if isinstance(value, int | float) and not isinstance(value, bool)]
    found = {name: float(np.mean([result[name] for result in results])) for name in names}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def label(split: str, subset: str, task: Any) -> str:
    """The name of a part of a task; the split only where there are several."""
    return subset if len(task.eval_splits) == 1 else f"{split}/{subset}"


def ndcg_by_query(task: Any, found: Found) -> PerItem:
    """nDCG@10 of every query by trec_eval's code, as mteb's mean has it; 0 where nothing was retrieved."""
    import pytrec_eval

    per_item = {}
    for (split, subset), run in found.items():
        judged = task.dataset[subset][split]["relevant_docs"]
        if task.skip_first_result:
            run = {query: dict(sorted(row.items(), key=lambda item: -item[1])[1:]) for query, row in run.items()}
        scores = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10"}).evaluate(run)
        per_item[label(split, subset, task)] = {query: scores.get(query, {}).get("ndcg_cut_10", 0.0) for query in run}
    return per_item


def correct_pairs(task: Any, folder: Path) -> PerItem:
    """1 for every pair whose translation is the nearest text, else 0, from the neighbours that mteb wrote."""
    written = json.loads((folder / task.prediction_file_name).read_bytes())
    per_item: PerItem = {}
    for subset, splits in written.items():
        if subset == "mteb_model_meta":
            continue
        for split, directions in splits.items():
            for direction, neighbours in directions.items():
                name = label(split, subset if len(directions) == 1 else f"{subset}/{direction}", task)
                per_item[name] = {
                    str(number): float(neighbour["corpus_id"] == number) for number, neighbour in enumerate(neighbours)
                }
    return per_item


def check_agreement(scores: Mapping[str, float], metric: str | None, per_item: PerItem | None) -> None:
    """Our scores of single items have mteb's mean (which it rounds to five digits)."""
    if metric is None or per_item is None or metric not in scores:
        return
    mean = float(np.mean([np.mean(list(found.values())) for found in per_item.values()]))
    assert abs(mean - scores[metric]) < 1e-4, (metric, mean, scores[metric])


def interval(per_item: PerItem | None) -> Interval | None:
    """95% bootstrap interval of the mean; None where a subset has a single item."""
    if per_item is None or any(len(found) < 2 for found in per_item.values()):
        return None
    return mean_interval([list(found.values()) for found in per_item.values()])


def items(task: Any) -> int:
    """Rows of the splits that are scored."""
    subsets = task.hf_subsets or ["default"]
    found = 0
    for subset in subsets:
        splits = task.dataset.get(subset, task.dataset)  # a task of one subset may name none
        found += sum(len(splits[split]) for split in task.eval_splits if split in splits)
    return found
