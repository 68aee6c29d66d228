"""Paired comparison of two models on the same prompts: bootstrap, permutation, Wilcoxon, Holm, and length held equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.perplexity.statistics import CONFIDENCE, RESAMPLES, interval
from evaluation.reward.results import AxisComparison, LengthControl

PERMUTATIONS = 9999  # scipy's own default; all of them where 2^prompts are fewer
LEVEL = 1 - CONFIDENCE

Array = np.ndarray


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values after Holm (1979), each at least as large as those of smaller ones; None stays and is not counted."""
    order = sorted((p, number) for number, p in enumerate(values) if p is not None)
    found: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, number) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        found[number] = highest
    return found


def permutation_p(differences: Array, seed: int) -> float | None:
    """Two-sided p of the mean difference under random signs; None for fewer than two pairs, 1 where all are 0."""
    from scipy.stats import permutation_test

    if len(differences) < 2:
        return None
    if not differences.any():
        return 1.0
    found = permutation_test(
        (differences,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, 2_000_000 // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def wilcoxon_p(differences: Array) -> float | None:
    """Two-sided p of the signed ranks, zeros split between both signs; None for fewer than two pairs."""
    from scipy.stats import wilcoxon

    if len(differences) < 2:
        return None
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, zero_method="zsplit").pvalue)


def mean(parts: Sequence[Array]) -> Array:
    """Mean of the first array over its last axis."""
    found: Array = parts[0].mean(axis=-1)
    return found


def length_control(differences: Array, log_ratios: Array, seed: int) -> LengthControl | None:
    """The difference of scores at equal length, by least squares. None for fewer than three pairs.

    `differences`, `log_ratios` `[prompts]`: continued minus base, and log((1 + characters) / (1 + characters of base)).
    The interval redraws prompts; p is of the t-test of the intercept. Where all ratios are the same no line can be told
    from a constant: then the plain difference stands if that ratio is 1, else nothing.
    """
    from scipy.stats import linregress, t

    if len(differences) < 3:
        return None
    inside = bool(log_ratios.min() <= 0 <= log_ratios.max())
    if np.ptp(log_ratios) == 0:
        if log_ratios[0] != 0:
            return None
        spread = interval(mean, [differences.tolist()], seed)
        return LengthControl(
            difference=float(differences.mean()), interval=spread, p=permutation_p(differences, seed), slope=None, inside=True
        )
    line = linregress(log_ratios, differences)
    p = None
    if line.intercept_stderr > 0:
        p = float(2 * t.sf(abs(line.intercept / line.intercept_stderr), len(differences) - 2))
    return LengthControl(
        difference=float(line.intercept),
        interval=intercept_interval(differences, log_ratios, seed),
        p=p,
        slope=float(line.slope),
        inside=inside,
    )


def intercept_interval(differences: Array, log_ratios: Array, seed: int) -> tuple[float, float] | None:
    """95% percentile interval of the intercept over redrawn prompts; draws in which all lengths are alike say nothing."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(differences), (RESAMPLES, len(differences)))
    x, y = log_ratios[drawn], differences[drawn]
    centred = x - x.mean(axis=1, keepdims=True)
    squares = (centred**2).sum(axis=1)
    told = squares > 0
    if not told.any():
        return None
    slopes = (centred * y).sum(axis=1)[told] / squares[told]
    intercepts = y.mean(axis=1)[told] - slopes * x.mean(axis=1)[told]
    low, high = np.quantile(intercepts, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def corrected(controls: Sequence[LengthControl | None]) -> list[LengthControl | None]:
    """The same with their p-values corrected together."""
    ps = holm([None if control is None else control.p for control in controls])
    return [
        None if control is None else control.model_copy(update={"p_holm": p, "real": p is not None and p < LEVEL})
        for control, p in zip(controls, ps, strict=True)
    ]


def compare(
    base: Mapping[str, Sequence[float]], continued: Mapping[str, Sequence[float]], log_ratios: Array, seed: int
) -> list[AxisComparison]:
    """Every axis of one judge, corrected together. Both map axis -> `[prompts]`."""
    assert list(base) == list(continued), "one judge has one list of axes"
    pairs = {axis: (np.asarray(base[axis]), np.asarray(continued[axis])) for axis in base}
    differences = {axis: later - first for axis, (first, later) in pairs.items()}
    permuted = [permutation_p(values, seed) for values in differences.values()]
    ranked = [wilcoxon_p(values) for values in differences.values()]
    controls = corrected([length_control(values, log_ratios, seed) for values in differences.values()])
    found = []
    for (axis, values), p, p_holm, w, w_holm, control in zip(
        differences.items(), permuted, holm(permuted), ranked, holm(ranked), controls, strict=True
    ):
        found.append(
            AxisComparison(
                axis=axis,
                base=float(pairs[axis][0].mean()),
                continued=float(pairs[axis][1].mean()),
                difference=float(values.mean()),
                interval=interval(mean, [values.tolist()], seed),
                p_permutation=p,
                p_permutation_holm=p_holm,
                p_wilcoxon=w,
                p_wilcoxon_holm=w_holm,
                real=p_holm is not None and p_holm < LEVEL,
                wins=float((values > 0).mean()),
                ties=float((values == 0).mean()),
                length_control=control,
            )
        )
    return found
