"""`definitions.yaml`: what production efficiency is to mean. Strict: unknown keys and formulas are refused with their line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluation.efficiency.figures import COSTS, Cost, Quality
from mecellem.errors import UserError
from mecellem.yaml_file import line_of, parse_yaml, read_text, refusal

DEFAULT = Path(__file__).with_name("definitions.yaml")


class Definition(BaseModel):
    """One definition. Weights are relative within `ratio` and `geometric`; of `penalty`'s costs, points a doubling."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    formula: Literal["ratio", "geometric", "penalty"]
    quality: dict[Quality, float]
    cost: dict[Cost, float] = Field(default_factory=dict)
    origin: str = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Definition:
        if not self.quality:
            raise ValueError("a definition needs at least one quality: add `quality: {mean: 1}`")
        for name, weight in (*self.quality.items(), *self.cost.items()):
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {name} is {weight:g}: it must be above 0, or be left out")
        if (self.formula == "ratio") == bool(self.cost):
            raise ValueError(
                "`ratio` is of quality alone: remove `cost`, or use geometric or penalty"
                if self.cost
                else f"`{self.formula}` weighs quality against costs: add `cost`, or use ratio"
            )
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all figures that it needs."""
        return (*self.quality, *self.cost)

    def formula_text(self) -> str:
        """The formula with its weights, for people."""
        q = weighted_text(self.quality)
        if self.formula == "ratio":
            return f"100 x Q / best Q, Q = {q}"
        if self.formula == "penalty":
            parts = [f"{weight:g} x log2({COSTS[cost].label} / best)" for cost, weight in self.cost.items()]
            return f"100 x Q / best Q - {' - '.join(parts)}, Q = {q}"
        parts = [f"({name} / best)^{weight:g}" for name, weight in self.quality.items()]
        parts += [
            f"({COSTS[cost].label} / best)^{weight:g}"
            if COSTS[cost].more_is_better
            else f"(best / {COSTS[cost].label})^{weight:g}"
            for cost, weight in self.cost.items()
        ]
        return f"100 x ({' x '.join(parts)})^(1/{sum(self.quality.values()) + sum(self.cost.values()):g})"


def weighted_text(weights: dict[Quality, float]) -> str:
    """`(2 retrieval + legal) / 3`."""
    parts = [name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items()]
    return parts[0] if len(weights) == 1 else f"({' + '.join(parts)}) / {sum(weights.values()):g}"


class DefinitionsFile(BaseModel):
    """The YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    definitions: list[Definition] = Field(min_length=1)


KEYS = {
    "": list(DefinitionsFile.model_fields),
    "definitions": list(Definition.model_fields),
    "quality": list(get_args(Quality)),
    "cost": list(get_args(Cost)),
}


def read_definitions(path: Path = DEFAULT) -> list[Definition]:
    """The definitions of a file, in order. Raises `UserError` with the line of what is wrong, also for a name used twice."""
    content, lines = parse_yaml(read_text(path, "definitions of efficiency"), path, needs="`definitions:` with at least one")
    try:
        found = DefinitionsFile.model_validate(content).definitions
    except ValidationError as error:
        raise refusal(path, error, content, lines, KEYS) from None
    names = [definition.name for definition in found]
    for number, name in enumerate(names):
        if name in names[:number]:
            where = line_of(("definitions", number), lines)
            raise UserError(f"{path}, line {where}: the definition {name!r} stands twice: give each a name of its own")
    return found
