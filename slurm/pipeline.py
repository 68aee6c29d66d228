"""`pipeline.yaml`: jobs that follow one another, each a file of slurm/ with its arguments. Strict, errors name the line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError, model_validator

from mecellem.errors import UserError
from mecellem.yaml_file import finding_at, line_of, parse_yaml, read_text, refusal

NAME = re.compile(r"[A-Za-z0-9_-]+")
OURS = ("dependency", "array", "job-name", "parsable", "export")  # set by what else the file says


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("YAML reads yes, no, on, off, true and false as booleans: put the word in quotes")
    return value


def _no_false(value: Any) -> Any:
    if value is False:
        raise ValueError("an option that is not wanted is left out; a value that YAML reads as false stands in quotes")
    return value


Word = Annotated[str | int | float, Field(union_mode="left_to_right"), BeforeValidator(_no_boolean)]
# `true` is an option that takes no value: `exclusive: true` -> --exclusive
Option = Annotated[StrictBool | str | int | float, Field(union_mode="left_to_right"), BeforeValidator(_no_false)]


class Stage(BaseModel):
    """One job, or an array of them; `after` names the stages it waits for (the one before it unless given).

    `options` are sbatch's own, without the dashes, in place of the file's `#SBATCH` lines and of the site's partition,
    account and QOS; `environment` what the job sees; `cpu`: it needs no GPU, so it goes where the site has such jobs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    job: Path
    arguments: list[Word] = Field(default_factory=list)
    options: dict[str, Option] = Field(default_factory=dict)
    environment: dict[str, Word] = Field(default_factory=dict)
    array: int | None = Field(default=None, ge=1)
    at_once: int | None = Field(default=None, ge=1)
    cpu: bool = False
    after: list[str] | None = None

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if not NAME.fullmatch(self.name):
            raise finding_at("name", f"{self.name!r} may have letters, digits, _ and - only: it names files")
        if self.at_once is not None and self.array is None:
            raise finding_at("at_once", "it limits how many tasks of an array run together: add `array`, or leave it out")
        for name in self.options:
            if name in OURS:
                raise finding_at(("options", name), "this is set by the pipeline: remove it")
        return self

    @property
    def indices(self) -> range:
        """Numbers of its tasks: one without an array."""
        return range(self.array or 1)


class PipelineFile(BaseModel):
    """The YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: list[Stage] = Field(min_length=1)


KEYS = {"": list(PipelineFile.model_fields), "stages": list(Stage.model_fields)}


@dataclass(frozen=True, slots=True)
class Step:
    """A stage in its place: what it waits for, and a digest of all that decides what it does, earlier stages included."""

    stage: Stage
    after: tuple[str, ...]
    digest: str


def read_pipeline(path: Path) -> list[Step]:
    """The stages in the order of the file. Raises `UserError` with the line of what is wrong."""
    content, lines = parse_yaml(read_text(path, "a pipeline"), path, needs="`stages:` with at least one")
    try:
        stages = PipelineFile.model_validate(content).stages
    except ValidationError as error:
        raise refusal(path, error, content, lines, KEYS) from None
    steps: dict[str, Step] = {}
    for number, stage in enumerate(stages):
        where = f"{path}, line {line_of(('stages', number), lines)}"
        if stage.name in steps:
            raise UserError(f"{where}: the stage {stage.name!r} stands twice: give each a name of its own")
        if not stage.job.is_file():
            raise UserError(f"{where}: {stage.job} is missing: jobs are named from the folder that the command is started in")
        after = tuple(stage.after if stage.after is not None else list(steps)[-1:])
        for name in after:
            if name not in steps:
                raise UserError(f"{where}: {stage.name!r} waits for {name!r}, which is no stage above it")
        steps[stage.name] = Step(stage, after, _digest(stage, [steps[name].digest for name in after]))
    return list(steps.values())


def option_words(options: Mapping[str, bool | str | int | float]) -> list[str]:
    """`--exclusive --time=09:00:00`."""
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]


def not_in(options: Iterable[str], site: list[str]) -> list[str]:
    """The options of a site but for those that stand in `options` too."""
    return [word for word in site if word.partition("=")[0].removeprefix("--") not in options]


def _digest(stage: Stage, before: list[str]) -> str:
    """Of what the stage does; which nodes, how many and for how long, and how many tasks at once, changes nothing in it."""
    parts = [stage.name, str(stage.job), stage.arguments, stage.environment, stage.array, before]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
