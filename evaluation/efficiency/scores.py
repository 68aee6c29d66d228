"""Definitions applied to systems: ratio, geometric mean and penalty; what is missing stays missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from evaluation.efficiency.definitions import Definition
from evaluation.efficiency.figures import Cost, Row, worse
from evaluation.efficiency.results import DefinitionScores, Front, Point, SystemScore

Inputs = dict[str, float]


def score_rows(definition: Definition, rows: Sequence[Row]) -> DefinitionScores:
    """All rows under one definition, in the order of `rows`."""
    found = {row.name: inputs_of(definition, row) for row in rows}
    complete = {name: inputs for name, (inputs, missing) in found.items() if not missing}
    best = references(definition, list(complete.values())) if complete else {}
    scores = {name: one_score(definition, inputs, best) for name, inputs in complete.items()}
    systems = [
        SystemScore(name=name, score=scores.get(name), rank=rank_of(name, scores), inputs=inputs, missing=missing)
        for name, (inputs, missing) in found.items()
    ]
    return DefinitionScores(
        name=definition.name, formula=definition.formula_text(), origin=definition.origin, best=best, systems=systems
    )


def inputs_of(definition: Definition, row: Row) -> tuple[Inputs, list[str]]:
    """The figures that a definition needs of a row, and those that it lacks; a cost of 0 has no ratio and counts as lacking."""
    inputs: Inputs = {}
    missing = []
    for name in definition.inputs:
        value = row.value(name)
        if value is not None:
            inputs[name] = value
        if value is None:
            missing.append(name)
        elif name in definition.cost and value <= 0:
            missing.append(f"{name} is 0")
    return inputs, missing


def quality_of(definition: Definition, inputs: Mapping[str, float]) -> float:
    """The weighted arithmetic mean of the qualities."""
    weights = definition.quality
    return sum(weight * inputs[name] for name, weight in weights.items()) / sum(weights.values())


def references(definition: Definition, rows: Sequence[Inputs]) -> Inputs:
    """The best of every input, and of the weighted quality (`Q`), over the systems that have all inputs."""
    best: Inputs = {name: max(inputs[name] for inputs in rows) for name in definition.quality}
    best |= {cost: min((inputs[cost] for inputs in rows), key=lambda value: worse(cost, value)) for cost in definition.cost}
    return best | {"Q": max(quality_of(definition, inputs) for inputs in rows)}


def one_score(definition: Definition, inputs: Inputs, best: Inputs) -> float:
    """The score of one system with all inputs. Where even the best quality is not above 0, all scores are 0."""
    if best["Q"] <= 0:
        return 0.0
    share = quality_of(definition, inputs) / best["Q"]
    if definition.formula == "ratio":
        return 100 * share
    if definition.formula == "penalty":
        lost = sum(weight * math.log2(times(cost, inputs, best)) for cost, weight in definition.cost.items())
        return 100 * share - lost
    if any(inputs[name] <= 0 for name in definition.quality):  # a correlation may be negative
        return 0.0
    logarithm = sum(weight * math.log(inputs[name] / best[name]) for name, weight in definition.quality.items())
    logarithm -= sum(weight * math.log(times(cost, inputs, best)) for cost, weight in definition.cost.items())
    return 100 * math.exp(logarithm / (sum(definition.quality.values()) + sum(definition.cost.values())))


def times(cost: Cost, inputs: Inputs, best: Inputs) -> float:
    """How many times the lowest cost: 1 or more."""
    return worse(cost, inputs[cost]) / worse(cost, best[cost])


def rank_of(name: str, scores: Mapping[str, float]) -> int | None:
    """1 for the highest score; equal scores share a rank."""
    return None if name not in scores else 1 + sum(score > scores[name] for score in scores.values())


def front(rows: Sequence[Row], quality: str, cost: Cost) -> Front:
    """Quality against one cost, cheapest first, and which systems no other one beats in both."""
    found = [(row.name, row.value(quality), row.value(cost)) for row in rows]
    pairs = [(name, q, c) for name, q, c in found if q is not None and c is not None]
    pairs.sort(key=lambda item: (worse(cost, item[2]), -item[1], item[0]))
    points = [
        Point(name=name, quality=q, cost=c, on_front=not any(beats(cost, other[1:], (q, c)) for other in pairs))
        for name, q, c in pairs
    ]
    return Front(quality=quality, cost=cost, points=points)


def beats(cost: Cost, one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether (quality, cost) `one` is at least as good in both and better in one."""
    costs = worse(cost, one[1]), worse(cost, other[1])
    return one[0] >= other[0] and costs[0] <= costs[1] and (one[0] > other[0] or costs[0] < costs[1])
