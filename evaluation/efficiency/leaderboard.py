"""Qualities from `mecellem evaluate`'s results: the mean over tasks, over retrieval, over the legal tasks among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.efficiency.figures import Figure, Row
from evaluation.efficiency.table import Table
from evaluation.results import read_record
from mecellem.errors import UserError

if TYPE_CHECKING:
    from evaluation.leaderboard.results import SystemResults

RETRIEVAL = "retrieval"


def read_leaderboard(path: Path, legal_tasks: Sequence[str] = ()) -> Table:
    """The systems of a leaderboard as rows, in percent.

    `legal_tasks`: the tasks that `legal` is the mean of; the three of the group `mecellem-legal` unless given. A mean that a
    system lacks a task of is missing, as in the leaderboard. Raises `UserError` for a name that is no task of it.
    """
    from evaluation.leaderboard.means import MEAN_TASK
    from evaluation.leaderboard.results import Leaderboard
    from evaluation.tasks.hub_tasks import MECELLEM_LEGAL

    board = read_record(path, Leaderboard, "make it with `mecellem evaluate`")
    known = [task.name for task in board.tasks]
    for name in legal_tasks:
        if name not in known:
            raise UserError(f"--legal-tasks {name}: {path} has no such task, it has {', '.join(known)}")
    group = [task.name for task in MECELLEM_LEGAL]
    legal = list(legal_tasks) or (group if set(group) <= set(known) else [])
    values = {mean.name: mean.values for mean in board.means}
    means = {"mean": values[MEAN_TASK], "retrieval": values.get(RETRIEVAL, {})}
    notes = [
        f"legal is the mean of {', '.join(legal)}"
        if legal
        else "without the tasks of mecellem-legal there is no legal mean: --legal-tasks names others"
    ]
    return Table(
        benchmark=f"{path.stem}: {len(known)} tasks of `mecellem evaluate`",
        origin=f"{path}: {', '.join(known)}",
        notes=notes,
        rows=[Row(name=system.name, figures=figures_of(system, means, legal)) for system in board.systems],
    )


def figures_of(
    system: SystemResults, means: Mapping[str, Mapping[str, float | None]], legal: Sequence[str]
) -> dict[str, Figure]:
    """The qualities of one system, and what its facts tell of its size."""
    scores = {quality: values.get(system.name) for quality, values in means.items()}
    if legal and all(task in system.tasks for task in legal):
        scores["legal"] = sum(system.tasks[task].main_score for task in legal) / len(legal)
    found = {name: Figure(value=100 * score, origin="mecellem evaluate") for name, score in scores.items() if score is not None}
    facts = system.facts
    if facts is None:
        return found
    sizes: dict[str, int | None] = {"parameters": facts.parameters, "dimensions": facts.dimensions}
    if facts.parameters is not None and facts.embedding_parameters is not None:
        sizes["backbone_parameters"] = facts.parameters - facts.embedding_parameters
    return found | {name: Figure(value=size, origin="counted") for name, size in sizes.items() if size is not None}
