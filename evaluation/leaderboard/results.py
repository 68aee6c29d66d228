"""The figures of a leaderboard, as `results.json` and the cache hold them."""

from __future__ import annotations

from typing import Any

from evaluation.encoders.base import EncoderFacts
from evaluation.results import LeftOut, Record
from evaluation.tasks.facts import TaskFacts

FORMAT = "mecellem.leaderboard/1"
Interval = tuple[float, float]


class TaskResult(Record):
    """One system on one task.

    `main_score` is mteb's, averaged over subsets and splits as mteb does; `metrics` are its others. `per_item` holds
    `per_item_metric` of every query (nDCG@10), pair (accuracy) or text, by subset where there are several;
    `interval` is the 95% bootstrap interval of its mean, None where the main metric is another. `truncated` is the share
    of texts that were longer than the context; `empty` ones have no letters. `hardware` is what made it in `seconds`.
    """

    task: str
    category: str
    revision: str
    main_metric: str
    main_score: float
    metrics: dict[str, float]
    per_item_metric: str | None
    per_item: dict[str, dict[str, float]] | None
    interval: Interval | None
    items: int
    texts: int
    empty: int
    truncated: float
    tokens_cut: int
    seconds: float
    hardware: str


class PairedComparison(Record):
    """`a` minus `b` in the mean over `tasks`: its paired bootstrap interval over items, and whether 0 is outside (`real`)."""

    a: str
    b: str
    metric: str
    tasks: list[str]
    difference: float
    interval: Interval
    confidence: float
    real: bool


class SystemResults(Record):
    """One system. `facts` is None for BM25; a task that it cannot do is not in `tasks`."""

    name: str
    spec: str
    kind: str
    sha256: str
    facts: EncoderFacts | None
    tasks: dict[str, TaskResult]
    against_bm25: PairedComparison | None


class Mean(Record):
    """A mean over `tasks`: None for a system that lacks one of them (`missing`), for it would be a mean of other tasks."""

    name: str
    tasks: list[str]
    values: dict[str, float | None]
    missing: dict[str, list[str]]


class Leaderboard(Record):
    """`results.json`: every system on every task, and the means as mteb defines them.

    `means`: over all tasks, over categories, then of each category. `group_means`: those that groups of tasks are published
    with. `left_out` tasks were asked for as part of a group and could not be had; they are in no mean.
    """

    format: str = FORMAT
    tasks: list[TaskFacts]
    left_out: list[LeftOut]
    systems: list[SystemResults]
    means: list[Mean]
    group_means: list[Mean]
    settings: dict[str, Any]
    versions: dict[str, str]
