"""Means over tasks, as mteb's leaderboards define them, and comparisons of two systems on the same items.

"mean (task)" weighs every task alike; "mean (task type)" is the mean of the categories' means, so that ten retrieval
tasks count as much as one of clustering. Both exist only for a system that has every task, as in mteb: means over different
tasks do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.bootstrap import mean_interval
from evaluation.leaderboard.results import Mean, PairedComparison, TaskResult
from evaluation.tasks.facts import GROUPS, TaskFacts
from evaluation.tasks.hub_tasks import HUB_GROUPS
from mecellem.errors import UserError

MEAN_TASK = "mean (task)"
MEAN_TYPE = "mean (task type)"


def categories(tasks: Sequence[TaskFacts]) -> dict[str, list[str]]:
    """Category -> names of its tasks, in the order of `tasks`."""
    found: dict[str, list[str]] = {}
    for task in tasks:
        found.setdefault(task.category, []).append(task.name)
    return found


def means(tasks: Sequence[TaskFacts], scores: Mapping[str, Mapping[str, float]]) -> list[Mean]:
    """The means of every system (name -> task -> main score): over all tasks, over categories, of each category."""
    groups = categories(tasks)
    everything = [task.name for task in tasks]
    parts = [_mean(name, names, scores) for name, names in groups.items()]
    by_type = {system: _average([part.values[system] for part in parts]) for system in scores}
    over_tasks = _mean(MEAN_TASK, everything, scores)
    return [over_tasks, over_tasks.model_copy(update={"name": MEAN_TYPE, "values": by_type}), *parts]


def group_means(names: Sequence[str], scores: Mapping[str, Mapping[str, float]]) -> list[Mean]:
    """The means that the groups among `names` are published with, over exactly the tasks that their authors average."""
    groups = [GROUPS[name] for name in names if name in HUB_GROUPS]
    return [
        _mean(group.mean, [task.name for task in HUB_GROUPS[group.name]], scores) for group in groups if group.mean is not None
    ]


def _average(values: Sequence[float | None]) -> float | None:
    """The mean, or None where a value is missing."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if len(numbers) == len(values) else None


def _mean(name: str, tasks: list[str], scores: Mapping[str, Mapping[str, float]]) -> Mean:
    lacking = {system: [task for task in tasks if task not in found] for system, found in scores.items()}
    return Mean(
        name=name,
        tasks=tasks,
        values={system: _average([found.get(task) for task in tasks]) for system, found in scores.items()},
        missing={system: names for system, names in lacking.items() if names},
    )


def compare(
    a: Mapping[str, TaskResult],
    b: Mapping[str, TaskResult],
    names: tuple[str, str] = ("a", "b"),
    confidence: float = 0.95,
) -> PairedComparison:
    """The mean over tasks of `a` minus `b`, with a paired bootstrap over items (queries, pairs) within every task.

    `a` and `b` are results by task; each subset of a task counts like a task. Raises `UserError` unless both have the same
    tasks with the same content and items, at least two in each.
    """
    if not a or a.keys() != b.keys():
        lacking = sorted(a.keys() ^ b.keys()) or ["any task"]
        raise UserError(
            f"{names[0]} and {names[1]} do not both have {', '.join(lacking)}: compare them on tasks that both have"
        )
    samples: list[list[float]] = []
    metrics = []
    for task, ours in a.items():
        theirs = b[task]
        if ours.revision != theirs.revision:
            raise UserError(f"{task} was another version for {names[0]} than for {names[1]}: evaluate both again, together")
        metrics.append(_metric(task, ours, theirs))
        samples += _differences(task, ours, theirs)
    difference = sum(sum(part) / len(part) for part in samples) / len(samples)
    low, high = mean_interval(samples, confidence)
    return PairedComparison(
        a=names[0],
        b=names[1],
        metric="+".join(dict.fromkeys(metrics)),
        tasks=list(a),
        difference=difference,
        interval=(low, high),
        confidence=confidence,
        real=low > 0 or high < 0,
    )


def _metric(task: str, ours: TaskResult, theirs: TaskResult) -> str:
    if ours.per_item_metric is None or ours.per_item_metric != theirs.per_item_metric:
        raise UserError(
            f"{task} ({ours.category}) has no score of single items, so it cannot be compared in pairs: leave it out"
        )
    return ours.per_item_metric


def _differences(task: str, ours: TaskResult, theirs: TaskResult) -> list[list[float]]:
    """Per subset of a task, the differences on the same items."""
    assert ours.per_item is not None and theirs.per_item is not None
    if {name: found.keys() for name, found in ours.per_item.items()} != {
        name: found.keys() for name, found in theirs.per_item.items()
    }:
        raise UserError(f"{task} was scored on different items for the two systems: evaluate both again, together")
    if any(len(found) < 2 for found in ours.per_item.values()):
        raise UserError(f"{task} has fewer than two items, which allow no interval: leave it out")
    return [[value - theirs.per_item[subset][item] for item, value in found.items()] for subset, found in ours.per_item.items()]
