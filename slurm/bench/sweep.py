"""`sweep.yaml`: which points are measured. A point is a number of nodes and a choice for every axis."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mecellem.errors import UserError
from mecellem.yaml_file import finding_at, parse_yaml, read_text, refusal
from megatron_recipes.config import EncoderRun, RunConfig
from megatron_recipes.plan import H100_PEAK_TFLOPS, Plan, plan
from slurm.pipeline import OURS, Option, Word

NAME = re.compile(r"[A-Za-z0-9_.]+")
SET_HERE = (*OURS, "nodes", "ntasks", "ntasks-per-node", "gpus-per-node")
Count = Annotated[int, Field(ge=1)]


class Sweep(BaseModel):
    """The YAML file. `axes`: name -> choice -> the flags of `mecellem train` that make it; `arguments` stand on every point.

    `scaling: strong` keeps the global batch of the recipe on any number of nodes, `weak` grows it with them, from the
    smallest number. `gpus_per_node` is `ranks_per_node` unless given; 0 on nodes without any. `skip` names points that are
    not measured: every one that has all of an entry's choices. They are predicted, and so is everything on `predict_nodes`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    arguments: list[Word] = Field(default_factory=list)
    steps: Count = 20
    warmup: int = Field(default=5, ge=0)
    nodes: list[Count] = Field(min_length=1)
    predict_nodes: list[Count] = Field(default_factory=list)
    ranks_per_node: Count
    gpus_per_node: int | None = Field(default=None, ge=0)
    peak_tflops: float = Field(default=H100_PEAK_TFLOPS, gt=0)
    scaling: Literal["strong", "weak"] = "strong"
    axes: dict[str, dict[str, list[Word]]] = Field(default_factory=dict)
    skip: list[dict[str, Word]] = Field(default_factory=list)
    at_once: int | None = Field(default=None, ge=1)
    options: dict[str, Option] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Sweep:
        for axis, choices in self.axes.items():
            for name in (axis, *choices):
                if not NAME.fullmatch(name):
                    raise finding_at(
                        ("axes", axis), f"the name {name!r} may have letters, digits, _ and . only: it names folders"
                    )
            if axis == "nodes" or not choices:
                raise finding_at(("axes", axis), "an axis needs at least one choice, and another name than nodes")
        for number, entry in enumerate(self.skip):
            for axis, choice in entry.items():
                known = self.all_nodes if axis == "nodes" else self.axes.get(axis, {})
                if choice not in known:
                    raise finding_at(("skip", number, axis), f"no point has {choice}")
        for option in self.options:
            if option in SET_HERE:
                raise finding_at(("options", option), "this is set by the sweep: remove it")
        return self

    @property
    def all_nodes(self) -> list[int]:
        """Numbers of nodes, measured or predicted, from the smallest."""
        return sorted({*self.nodes, *self.predict_nodes})

    def points(self) -> list[Point]:
        """Every point, in the order of the axes in the file, smallest numbers of nodes first."""
        return [
            Point(self, nodes, dict(zip(self.axes, chosen, strict=True)))
            for nodes in self.all_nodes
            for chosen in itertools.product(*self.axes.values())
        ]


KEYS = {"": list(Sweep.model_fields)}


@dataclass(frozen=True)
class Point:
    """One configuration on a number of nodes."""

    sweep: Sweep
    nodes: int
    choices: dict[str, str]

    @property
    def name(self) -> str:
        """Of its folder: `n2-tp2-b24-bf16`."""
        return "-".join([f"n{self.nodes}", *self.choices.values()])

    @property
    def ranks(self) -> int:
        """Of the whole job."""
        return self.nodes * self.sweep.ranks_per_node

    @property
    def measured(self) -> bool:
        """Whether the file wants it measured; else it is only predicted."""
        mine = {"nodes": self.nodes, **self.choices}
        skipped = any(all(mine.get(axis) == choice for axis, choice in entry.items()) for entry in self.sweep.skip)
        return self.nodes in self.sweep.nodes and not skipped

    @cached_property
    def flags(self) -> list[str]:
        """Of `mecellem train`, the recipe first, without those of a measurement."""
        flags = [str(word) for word in self.sweep.arguments]
        flags += [str(word) for axis, choice in self.choices.items() for word in self.sweep.axes[axis][choice]]
        words = [self.sweep.recipe, *flags]
        grown = self.nodes / min(self.sweep.nodes)
        if self.sweep.scaling == "weak" and grown != 1:
            config = _parse(words)
            if not isinstance(config, EncoderRun):
                raise UserError("`scaling: weak` is for encoders: a decoder's batch stands in its curriculum; use strong")
            words += ["--schedule.global-batch-size", str(round(config.schedule.global_batch_size * grown))]
        return words

    @cached_property
    def plan(self) -> Plan:
        """What a run of it would take. Raises `UserError` for a point that training would refuse."""
        return plan(_parse(self.flags), self.ranks, peak_tflops=self.sweep.peak_tflops)

    @property
    def command(self) -> list[str]:
        """Of `mecellem`, without --out."""
        return ["train", *self.flags, "--measure", str(self.sweep.steps), "--measure-warmup", str(self.sweep.warmup)]

    @property
    def folder(self) -> str:
        """Its name with a digest of what is measured: a point that was changed is another one."""
        told = json.dumps([self.command, self.ranks, self.nodes])
        return f"{self.name}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"


def _parse(words: list[str]) -> RunConfig:
    from megatron_recipes.train import parse

    return parse(words)[0].config


def read_sweep(path: Path) -> Sweep:
    """Read the file. Raises `UserError` with the line of what is wrong."""
    content, lines = parse_yaml(read_text(path, "a sweep"), path, needs="`recipe:`, `nodes:` and `ranks_per_node:`")
    try:
        sweep = Sweep.model_validate(content)
    except ValidationError as error:
        raise refusal(path, error, content, lines, KEYS) from None
    names = [point.name for point in sweep.points()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: two points are called {twice}: give choices names of their own")
    return sweep
