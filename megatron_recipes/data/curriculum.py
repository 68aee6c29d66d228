"""A curriculum: the stages of a causal run as data, in tokens, from a YAML file.

    stages:
      - name: general
        tokens: 3.7B                  # or 3_700_000_000, 3_700M; B is 10^9, M 10^6, K 10^3
        seq_len: 4096
        global_batch_tokens: 4_194_304
        lr: {peak: 1.0e-4, final: 1.0e-5, warmup_tokens: 200M, decay: cosine}   # or one number: constant
        attention: document           # or across; document is the default
        sources:
          - {name: web, path: data/web, weight: 0.8}
          - {name: english, path: data/english, weight: 0.2, max_epochs: 2, replay: true}

Paths are prefixes of `.bin/.idx` and relative to the folder in which the command is run. A step's learning rate is a pure
function of the stage's tokens at the step's end, its own included: the last step of a stage has `final`, and a warm-up's
first step is above `initial`. `max_epochs` (1 unless set) bounds how often a source's corpus has been read by the end of
that stage, counted from the curriculum's start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from mecellem.errors import UserError
from mecellem.yaml_file import Place, finding_at, line_of, parse_yaml, read_text, refusal
from megatron_recipes.config import RopeScaling
from megatron_recipes.data.curriculum_stage import LearningRate, Source, Stage, Strict
from megatron_recipes.data.micro_batches import micro_batch_advice

OF = "a curriculum"  # whose file it is, in messages


class _File(Strict):
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names(self) -> _File:
        names = [stage.name for stage in self.stages]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise finding_at(
                    "stages", f"two stages are called {name!r} (numbers {names.index(name) + 1} and {index + 1}): rename one"
                )
        return self


KEYS = {
    "": list(_File.model_fields),
    "stages": list(Stage.model_fields),
    "sources": list(Source.model_fields),
    "lr": list(LearningRate.model_fields),
}


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """The stages in their order. Steps are optimizer steps of the whole curriculum, counted from 0."""

    path: Path
    stages: tuple[Stage, ...]
    lines: Mapping[Place, int] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, path: Path | str) -> Curriculum:
        """Read and check a YAML file. Raises `UserError`: one sentence with file, line, key and what to do."""
        return cls.parse(read_text(Path(path), of=OF), Path(path))

    @classmethod
    def parse(cls, text: str, path: Path) -> Curriculum:
        """The same for a text that was read from `path`, which errors name."""
        content, lines = parse_yaml(text, path, needs="`stages:` with at least one stage")
        try:
            return cls(path, _File.model_validate(content).stages, lines)
        except ValidationError as error:
            raise refusal(path, error, content, lines, KEYS) from None

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Tokens of all steps."""
        return sum(stage.trained_tokens for stage in self.stages)

    def place(self, step: int) -> tuple[int, int]:
        """The stage of step `step` (from 0) and the step's number within it (from 0)."""
        assert 0 <= step < self.steps, (step, self.steps)
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index, step
            step -= stage.steps
        raise AssertionError("unreachable")

    def stage_at(self, step: int) -> Stage:
        """The stage of step `step` (from 0)."""
        return self.stages[self.place(step)[0]]

    def learning_rate(self, step: int) -> float:
        """The rate of step `step` (from 0)."""
        index, inside = self.place(step)
        stage = self.stages[index]
        return stage.lr.at((inside + 1) * stage.global_batch_tokens, stage.trained_tokens)

    def tokens_after(self, steps: int) -> int:
        """Tokens seen when the first `steps` steps are done: 0 for 0."""
        seen = 0
        for stage in self.stages:
            done = min(steps, stage.steps)
            seen += done * stage.global_batch_tokens
            steps -= done
        assert steps == 0, "more steps than the curriculum has"
        return seen

    def where(self, stage: int, source: int | None = None, key: str = "") -> str:
        """`FILE, line N, stage general, source web`: the beginning of an error's sentence."""
        place: Place = ("stages", stage) if source is None else ("stages", stage, "sources", source)
        name = f", stage {self.stages[stage].name!r}"
        if source is not None:
            name += f", source {self.stages[stage].sources[source].name!r}"
        return f"{self.path}, line {line_of((*place, key) if key else place, self.lines)}{name}"

    def positions(self, stage: int, max_sequence_length: int) -> int:
        """The positions that a model of `max_sequence_length` has been trained for once stage `stage` (from 0) has begun."""
        return max(max_sequence_length, *(done.seq_len for done in self.stages[: stage + 1]))

    def check_positions(self, max_sequence_length: int, rope_scaling: RopeScaling) -> None:
        """Raise `UserError` where a stage's sequences exceed both the model's positions and the reach of its RoPE.

        `rope_scaling` is the model's; a stage has its own, or that of the last stage before it which has one.
        """
        for index, stage in enumerate(self.stages):
            rope_scaling = stage.rope_scaling if stage.rope_scaling is not None else rope_scaling
            before, factor = rope_scaling.original_max_position_embeddings, rope_scaling.factor
            scaled = rope_scaling.rope_type != "none"
            if stage.seq_len > max(max_sequence_length, factor * before if scaled else 0):
                reach = f" and the {before:,} x {factor:g} that {rope_scaling.rope_type} reaches" if scaled else ""
                raise UserError(
                    f"{self.where(index, key='seq_len')}: seq_len {stage.seq_len:,} exceeds the {max_sequence_length:,} of "
                    f"--model.max-sequence-length{reach}: shorten it, or set a rope_scaling of the stage that reaches it"
                )

    def check_layout(self, data_parallel_size: int, micro_batch_tokens: int) -> None:
        """Raise `UserError` where a stage's batch cannot be dealt out to so many ranks in micro batches of this size."""
        for index, stage in enumerate(self.stages):
            rows = micro_batch_tokens // stage.seq_len
            if rows == 0:
                raise UserError(
                    f"{self.where(index, key='seq_len')}: seq_len {stage.seq_len:,} exceeds --micro-batch-tokens "
                    f"{micro_batch_tokens:,}: {micro_batch_advice(self.stages, data_parallel_size, micro_batch_tokens)}"
                )
            if stage.sequences_per_step % (rows * data_parallel_size):
                raise UserError(
                    f"{self.where(index, key='global_batch_tokens')}: a step's {stage.sequences_per_step:,} sequences do not "
                    f"divide by {rows} a micro batch (--micro-batch-tokens {micro_batch_tokens:,}) x {data_parallel_size} "
                    f"data-parallel ranks: {micro_batch_advice(self.stages, data_parallel_size, micro_batch_tokens)}"
                )
