"""One stage of a curriculum as the file has it: its learning rate and its sources, checked.

Weights are shares of the stage's tokens: they must sum to 1 (to 0.001, which allows 0.333 three times; then they are
scaled to exactly 1), because a mixture that is scaled in silence hides a mistyped weight. A stage takes whole steps of
`global_batch_tokens`, so it may pass `tokens` by less than a step.
"""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mecellem.yaml_file import DIGITS, finding_at
from megatron_recipes.config import RopeScaling
from megatron_recipes.data.blend import MOST_SEQUENCES

Attention = Literal["document", "across"]
WEIGHT_TOLERANCE = 1e-3  # of the weights' sum: the precision that the mixture is promised with
UNITS = {"": 0, "K": 3, "M": 6, "B": 9, "T": 12}
NUMBER = re.compile(rf"({DIGITS}(?:[.]{DIGITS})?)\s*([KMBT]?)")
LONGEST_NUMBER = 40  # characters
MOST_TOKENS = 10**15  # of one number in the file, 1000T: far beyond any run, and exact as a float


def _tokens(value: Any) -> int:
    """4096, "57_000M" or "3.7B" as a whole number."""
    number: Any = None
    if isinstance(value, str):
        match = NUMBER.fullmatch(value.strip()) if len(value) <= LONGEST_NUMBER else None
        number = Fraction(match[1].replace("_", "")) * 10 ** UNITS[match[2]] if match else None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    if number is None:
        raise ValueError(f"{str(value)[:LONGEST_NUMBER]!r} is not a number of tokens: write 4096, 57_000M or 3.7B")
    if not abs(number) <= MOST_TOKENS:  # so written, .nan is refused too
        raise ValueError(f"a number of tokens is at most {short(MOST_TOKENS)}: lower it")
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number of tokens")
    return int(number)


def short(tokens: int) -> str:
    """`640`, `3.7B`, `16.55B`: a number of tokens in the units that the file may use, rounded to two decimals."""
    for unit, power in reversed(UNITS.items()):
        if tokens >= 10**power:
            return f"{tokens / 10**power:.2f}".rstrip("0").rstrip(".") + unit
    return str(tokens)


def _length(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a length: write it out, 4096 or 32_768, since 4K could mean 4,000 or 4,096")
    return value


Tokens = Annotated[int, BeforeValidator(_tokens), Field(gt=0)]
TokensOrNone = Annotated[int, BeforeValidator(_tokens), Field(ge=0)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A part of the file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LearningRate(Strict):
    """Linear warm-up from `initial` to `peak`, constant, then down to `final` over the stage's last `decay_tokens`."""

    peak: Positive
    final: Share | None = None  # for every decay but constant
    initial: Share = 0.0  # where the warm-up starts: the rate that the stage before ended with, or 0
    warmup_tokens: TokensOrNone = 0
    decay: Literal["constant", "linear", "cosine", "wsd"] = "constant"  # wsd: 1 - sqrt (Hägele et al. 2024, arXiv 2405.18392)
    decay_tokens: Tokens | None = None  # all after the warm-up where it is not given; wsd needs it

    @model_validator(mode="after")
    def _consistent(self) -> LearningRate:
        if self.decay == "constant":
            for key in ("final", "decay_tokens"):
                if getattr(self, key) is not None:
                    raise finding_at(key, "a constant rate has none: remove it or set decay to linear, cosine or wsd")
        elif self.final is None:
            raise finding_at("final", f"{self.decay} needs the rate that the stage ends with: add it")
        if self.decay == "wsd" and self.decay_tokens is None:
            raise finding_at("decay_tokens", "wsd needs the length of its decay: add it")
        if self.final is not None and self.final > self.peak:
            raise finding_at("final", f"{self.final:g} is above peak {self.peak:g}: lower it")
        if self.initial > self.peak:
            raise finding_at("initial", f"{self.initial:g} is above peak {self.peak:g}: lower it")
        if "initial" in self.model_fields_set and not self.warmup_tokens:
            raise finding_at("initial", "only a warm-up begins with it: set warmup_tokens, or remove it")
        return self

    def at(self, tokens: int, stage_tokens: int) -> float:
        """The rate when `tokens` of the stage's `stage_tokens` are seen."""
        if tokens < self.warmup_tokens:
            return self.initial + (self.peak - self.initial) * tokens / self.warmup_tokens
        if self.final is None:
            return self.peak
        length = self.decay_tokens or stage_tokens - self.warmup_tokens
        done = min(max((tokens - (stage_tokens - length)) / length, 0.0), 1.0) if length else 1.0
        left = {"linear": 1.0 - done, "cosine": (1.0 + math.cos(math.pi * done)) / 2.0, "wsd": 1.0 - math.sqrt(done)}[
            self.decay
        ]
        return self.final + (self.peak - self.final) * left


def _learning_rate(value: Any) -> Any:
    return {"peak": value} if isinstance(value, (int, float, str)) and not isinstance(value, bool) else value


def _rope_scaling(value: Any) -> RopeScaling:
    if not isinstance(value, dict):
        raise ValueError("it must be a mapping with rope_type, factor and original_max_position_embeddings")
    names = [field.name for field in dataclasses.fields(RopeScaling)]
    for key in value:
        if key not in names:
            raise finding_at(str(key), f"unknown key {key!r}: the keys are {', '.join(names)}")
    scaling = RopeScaling(**value)
    problem = scaling.problem(named=value.keys())
    if problem:
        raise finding_at(*problem)
    return scaling


class Source(Strict):
    """One corpus in one stage."""

    path: Path  # prefix of <prefix>.bin, <prefix>.idx, <prefix>.manifest.json
    weight: Positive  # share of the stage's tokens
    name: Annotated[str, Field(min_length=1)] = ""  # for tables and plots; the last part of `path` unless given
    max_epochs: Positive = 1.0  # of this corpus, by the end of this stage, over the whole curriculum
    replay: Annotated[bool, Field(strict=True)] = (
        False  # text of the base model's own kind, against forgetting; drawn apart, trained on like any other
    )

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and "name" not in values and isinstance(values.get("path"), (str, Path)):
            return {**values, "name": Path(values["path"]).name}
        return values


class Stage(Strict):
    """One stage. Its sources' weights sum to 1."""

    name: Annotated[str, Field(min_length=1)]
    tokens: Tokens
    seq_len: Annotated[int, BeforeValidator(_length), Field(gt=1)]  # tokens of a packed sequence
    global_batch_tokens: Tokens  # of an optimizer step over all ranks; a multiple of `seq_len`
    lr: Annotated[LearningRate, BeforeValidator(_learning_rate)]
    attention: Attention = "document"
    rope_theta: Annotated[float, Field(strict=True, gt=1, allow_inf_nan=False)] | None = (
        None  # replaces the model's from this stage on
    )
    rope_scaling: Annotated[RopeScaling, BeforeValidator(_rope_scaling)] | None = None  # likewise
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]

    @property
    def steps(self) -> int:
        """Optimizer steps: the tokens, rounded up to whole steps."""
        return -(-self.tokens // self.global_batch_tokens)

    @property
    def sequences_per_step(self) -> int:
        """Rows of the global batch."""
        return self.global_batch_tokens // self.seq_len

    @property
    def sequences(self) -> int:
        """Rows of the whole stage."""
        return self.steps * self.sequences_per_step

    @property
    def trained_tokens(self) -> int:
        """Tokens of the stage's whole steps: `tokens` or up to a step more."""
        return self.steps * self.global_batch_tokens

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        batch, length = self.global_batch_tokens, self.seq_len
        if batch % length:
            below = max(1, batch // length) * length
            raise finding_at("seq_len", f"{length:,} does not divide global_batch_tokens {batch:,}: set that to {below:,}, say")
        for label, advice in (("path", "join them"), ("name", "rename one")):
            values = [str(getattr(source, label)) for source in self.sources]
            for value in values:
                if values.count(value) > 1:
                    raise finding_at("sources", f"two sources of the stage have the {label} {value!r}: {advice}")
        total = sum(source.weight for source in self.sources)
        if abs(total - 1.0) > WEIGHT_TOLERANCE:
            shares = ", ".join(f"{source.name} {source.weight / total:.4g}" for source in self.sources[:8])
            more = " ..." if len(self.sources) > 8 else ""
            raise finding_at(
                "sources", f"the weights sum to {total:.6g} instead of 1: in the same proportions they are {shares}{more}"
            )
        if self.sequences > MOST_SEQUENCES:
            raise finding_at(
                "tokens", f"they are {self.sequences:,} sequences, more than the {MOST_SEQUENCES:,} of a stage: split the stage"
            )
        self._check_schedule()
        return self

    def _check_schedule(self) -> None:
        used = self.lr.warmup_tokens + (self.lr.decay_tokens or 0)
        if used > self.trained_tokens:
            raise finding_at(
                "lr",
                f"warmup_tokens and decay_tokens take {used:,} of the stage's {self.trained_tokens:,} tokens: shorten them",
            )
        if self.lr.warmup_tokens == self.trained_tokens:
            raise finding_at("lr", "warmup_tokens takes the whole stage: the learning rate would only rise")
        if 0 < self.lr.warmup_tokens <= self.global_batch_tokens:
            raise finding_at(
                "lr",
                f"warmup_tokens {self.lr.warmup_tokens:,} ends within the first step of {self.global_batch_tokens:,} tokens, "
                "which would have the peak already: lengthen it, or remove it",
            )

    @property
    def weights(self) -> tuple[float, ...]:
        """The sources' shares, scaled to sum to exactly 1."""
        total = math.fsum(source.weight for source in self.sources)
        return tuple(source.weight / total for source in self.sources)
