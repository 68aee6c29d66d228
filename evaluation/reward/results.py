"""The figures of one call, as its JSON file holds them."""

from __future__ import annotations

from typing import Any, Literal

from evaluation.results import Record

FORMAT = "mecellem.reward/1"
Interval = tuple[float, float] | None  # 95%; None for fewer than two prompts
OVERALL = "overall"  # the judge's own gated sum over its axes


class LengthControl(Record):
    """The difference at equal length: intercept of a line through (log of the ratio of lengths, difference of scores).

    `slope` is what one natural logarithm of length is worth, None where all pairs have the same ratio. `inside`: some
    continuations are longer and some shorter than the base model's, so that equal length is not an extrapolation. `p_holm` is
    corrected for the number of the judge's axes; `real`: it is below 0.05.
    """

    difference: float
    interval: Interval
    p: float | None
    p_holm: float | None = None
    real: bool = False
    slope: float | None
    inside: bool


class AxisComparison(Record):
    """One axis: means over prompts, continued minus base, and whether that can be chance.

    `p_permutation` flips signs of the pairs' differences at random (exact for few pairs), `p_wilcoxon` is of the signed
    ranks; `..._holm` are corrected for the number of the judge's axes (the overall score is corrected with them). `real`: the
    corrected permutation test is below 0.05. `wins`, `ties`: shares of the prompts.
    """

    axis: str
    base: float
    continued: float
    difference: float
    interval: Interval
    p_permutation: float | None
    p_permutation_holm: float | None
    p_wilcoxon: float | None
    p_wilcoxon_holm: float | None
    real: bool
    wins: float
    ties: float
    length_control: LengthControl | None


class JudgeFacts(Record):
    """Which judge it was. `overall`: it has a gate, so it gives one score over all axes."""

    name: str
    folder: str
    digest: str
    layout: Literal["armorm", "classifier"]
    axes: list[str]
    overall: bool
    chat_template: bool
    cut: int


class JudgeScores(Record):
    """Scores of one judge: `base` and `continued` hold one list per axis, in the order of the prompts."""

    judge: JudgeFacts
    base: dict[str, list[float]]
    continued: dict[str, list[float]]
    comparisons: list[AxisComparison]


class Author(Record):
    """Who wrote the continuations, and how long they are. Lengths in characters; `unfinished` ended at the token limit."""

    name: str
    source: str
    digest: str
    mean_length: float
    median_length: float
    empty: int
    unfinished: int | None


class RewardResults(Record):
    """One pair of models under one or more judges."""

    format: str = FORMAT
    prompts: str
    prompt_count: int
    base: Author
    continued: Author
    length_difference: float
    length_interval: Interval
    judges: list[JudgeScores]
    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: str
