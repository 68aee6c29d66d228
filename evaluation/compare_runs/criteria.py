"""What two runs on the same batches must have in common: losses, their trend, gradient norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.compare_runs.results import Criterion
from evaluation.run_folder import training_lines, validation_lines
from mecellem.errors import UserError

LEAST_STEPS = 20
SPIKE = 5.0  # times the running median
MEDIAN_OVER = 51  # steps
MORE_SPIKES = 0.005  # of the steps

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What passes. Losses in nats per token."""

    max_gap: float = 0.01
    max_grad_norm_ratio: float = 1.25

    def __post_init__(self) -> None:
        """Refuse limits that nothing or everything passes."""
        if not self.max_gap > 0 or not math.isfinite(self.max_gap):
            raise UserError(f"--max-gap {self.max_gap} must be positive")
        if not self.max_grad_norm_ratio > 1 or not math.isfinite(self.max_grad_norm_ratio):
            raise UserError(f"--max-grad-norm-ratio {self.max_grad_norm_ratio} must be above 1")


@dataclass(frozen=True, slots=True)
class Pair:
    """The steps that both runs wrote down: arrays `[steps]`, losses and gradient norms `[2, steps]` (A, B)."""

    steps: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    grad_norm: np.ndarray
    after_warmup: np.ndarray  # bool

    @property
    def gap(self) -> np.ndarray:
        """Loss of B minus loss of A on the same batch."""
        return self.loss[1] - self.loss[0]


def number(value: Any) -> float:
    """A figure as a float; NaN for one that is missing or null (JSON has no NaN)."""
    return float("nan") if value is None else float(value)


def pair(a: Rows, b: Rows, warmup_tokens: int) -> Pair:
    """The common steps of two runs. Raises `UserError` for different token counts or too few steps after warm-up."""
    ours, theirs = ({row["step"]: row for row in training_lines(rows)} for rows in (a, b))
    steps = sorted(ours.keys() & theirs.keys())
    for step in steps:
        if ours[step]["tokens"] != theirs[step]["tokens"]:
            raise UserError(
                f"step {step} is after {ours[step]['tokens']:,} tokens in the first run and {theirs[step]['tokens']:,} in the "
                "second: their batches differ, so their losses cannot be compared"
            )
    tokens = np.array([ours[step]["tokens"] for step in steps], dtype=np.int64)
    after = tokens > warmup_tokens
    if after.sum() < LEAST_STEPS:
        raise UserError(
            f"the runs have {int(after.sum())} steps in common after --warmup-tokens {warmup_tokens:,}, and at least "
            f"{LEAST_STEPS} are needed: train longer, write metrics more often (--log-interval), or lower --warmup-tokens"
        )

    def column(name: str) -> np.ndarray:
        return np.array([[number(rows[step].get(name)) for step in steps] for rows in (ours, theirs)])

    return Pair(np.array(steps), tokens, column("loss"), column("grad_norm"), after)


def window(steps: int, asked: int) -> int:
    """Over how many steps the gap is averaged: as asked, else 5% of them and at least 10."""
    return min(asked or max(10, steps // 20), steps)


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` values in a row: `[n]` -> `[n - width + 1]`."""
    return np.convolve(values, np.full(width, 1 / width), "valid")


def trend(gap: np.ndarray) -> float:
    """How much a straight line through the second half of the gaps rises from its beginning to its end."""
    half = gap[len(gap) // 2 :]
    slope = np.polynomial.Polynomial.fit(np.arange(len(half)), half, 1).convert().coef
    return float(slope[1] * (len(half) - 1)) if len(slope) > 1 else 0.0


def spikes(norms: np.ndarray) -> np.ndarray:
    """Where a gradient norm is more than `SPIKE` times the median of the `MEDIAN_OVER` steps around it: bool `[steps]`."""
    side = MEDIAN_OVER // 2
    around = [np.median(norms[max(0, i - side) : i + side + 1]) for i in range(len(norms))]
    return norms > SPIKE * np.array(around)


def criteria(runs: Pair, a: Rows, b: Rows, limits: Limits, smoothed_over: int) -> list[Criterion]:
    """All criteria, also those that make no sense after another one failed (they then fail without a value)."""
    keep = runs.after_warmup
    loss, norms = runs.loss[:, keep], runs.grad_norm[:, keep]
    found = [reaches(a, b), finite(runs)]
    whole = bool(np.isfinite(loss).all() and np.isfinite(norms).all())
    gap = loss[1] - loss[0]
    smoothed = moving_average(gap, smoothed_over) if whole else np.full(1, np.nan)
    largest = float(smoothed[np.abs(smoothed).argmax()]) if whole else None
    rise = trend(gap) if whole else None
    ratio = float(np.median(norms[1] / norms[0])) if whole and (norms > 0).all() else None
    found += [
        Criterion(
            name="loss gap",
            value=largest,
            limit=f"at most {limits.max_gap:g} up or down",
            passed=largest is not None and abs(largest) <= limits.max_gap,
            meaning=f"largest difference B - A of the losses averaged over {smoothed_over} steps, in nats per token",
        ),
        Criterion(
            name="divergence",
            value=rise,
            limit=f"at most {limits.max_gap:g}",
            passed=rise is not None and rise <= limits.max_gap,
            meaning="rise of B - A over the second half of the steps, by a straight line",
        ),
        Criterion(
            name="gradient norms",
            value=ratio,
            limit=f"{1 / limits.max_grad_norm_ratio:.3g} to {limits.max_grad_norm_ratio:.3g}",
            passed=ratio is not None and 1 / limits.max_grad_norm_ratio <= ratio <= limits.max_grad_norm_ratio,
            meaning="median over steps of B's gradient norm divided by A's",
        ),
        spikes_criterion(norms, whole),
    ]
    validation = validation_gap(a, b, limits)
    return found if validation is None else [*found, validation]


def reaches(a: Rows, b: Rows) -> Criterion:
    """Whether B got as far as A: a run that diverges is stopped before its bad step is written."""
    last = [training_lines(rows)[-1]["step"] for rows in (a, b)]
    return Criterion(
        name="steps", value=last[1], limit=f"at least {last[0]}", passed=last[1] >= last[0], meaning="last step of B, of A"
    )


def finite(runs: Pair) -> Criterion:
    """Whether every loss and gradient norm of B is a number."""
    bad = int((~np.isfinite(runs.loss[1]) | ~np.isfinite(runs.grad_norm[1])).sum())
    return Criterion(
        name="not finite", value=bad, limit="0", passed=bad == 0, meaning="steps of B whose loss or gradient norm is no number"
    )


def spikes_criterion(norms: np.ndarray, whole: bool) -> Criterion:
    """Whether B's gradient norms jump more often than A's."""
    counts = [int(spikes(row).sum()) for row in norms] if whole else None
    allowed = (counts[0] if counts else 0) + max(1, math.ceil(MORE_SPIKES * norms.shape[1]))
    return Criterion(
        name="gradient spikes",
        value=counts[1] if counts else None,
        limit=f"at most {allowed}",
        passed=counts is not None and counts[1] <= allowed,
        meaning=f"steps of B whose gradient norm is over {SPIKE:g} times the median around it; A has "
        f"{counts[0] if counts else 'not been counted'}",
    )


def validation_gap(a: Rows, b: Rows, limits: Limits) -> Criterion | None:
    """The gap of the last validation loss that both runs have; None without one."""
    ours, theirs = ({row["step"]: number(row["validation_loss"]) for row in validation_lines(rows)} for rows in (a, b))
    common: Sequence[int] = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    gap = theirs[common[-1]] - ours[common[-1]]
    return Criterion(
        name="validation loss gap",
        value=gap if math.isfinite(gap) else None,
        limit=f"at most {limits.max_gap:g} up or down",
        passed=abs(gap) <= limits.max_gap,
        meaning=f"B - A of the validation losses of step {common[-1]}",
    )
