"""The figures of one comparison, as `compare_runs.json` holds them."""

from __future__ import annotations

from typing import Any

from evaluation.results import Record

FORMAT = "mecellem.run-comparison/1"


class Difference(Record):
    """One setting in which the runs differ. `expected`: it may, without changing what is trained on."""

    name: str
    a: Any
    b: Any
    expected: bool


class Criterion(Record):
    """One question to the runs: `value` was measured, `limit` says what passes. None where there is nothing to measure."""

    name: str
    value: float | None
    limit: str
    passed: bool
    meaning: str


class RunComparison(Record):
    """`passed` when all criteria are. Steps and tokens are those after warm-up that both runs have."""

    format: str = FORMAT
    a: str
    b: str
    passed: bool
    steps: int
    first_step: int
    last_step: int
    warmup_tokens: int
    smoothed_over: int
    criteria: list[Criterion]
    differences: list[Difference]
