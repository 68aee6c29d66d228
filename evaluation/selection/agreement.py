"""Would a cheaper ranking of the checkpoints have been the same? Kendall's tau, with its interval over queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evaluation.bootstrap import redrawn_means
from evaluation.selection.results import Agreement, CheckpointScores, Metric, SystemScores

LEAST = 3  # checkpoints: of two there is one pair, and tau is 1 or -1
RESAMPLES = 500
CONFIDENCE = 0.95
NAMES = {"mean_pooled": "mean-pooled retrieval", "post_trained": "retrieval after post-training"}
LOSS = "fill-mask loss"


def agreements(rows: Sequence[CheckpointScores], metric: Metric) -> list[Agreement]:
    """The loss, and where there was post-training mean-pooled retrieval, beside the ranking by `metric`; none without tasks."""
    found = {name: [row.scores(name) for row in rows] for name in ("mean_pooled", "post_trained")}
    target = matrices(found[metric])
    if not target:
        return []
    loss = [-np.array([[row.fill_mask.all.nll] for row in rows])]  # as of one query, so that it stays as it is
    studies = [agreement(LOSS, loss, NAMES[metric], target)]
    if metric == "post_trained":
        studies.insert(0, agreement(NAMES["mean_pooled"], matrices(found["mean_pooled"]), NAMES[metric], target))
    return studies


def matrices(scores: Sequence[SystemScores | None]) -> list[np.ndarray]:
    """nDCG@10 `[checkpoints, queries]`, one array a task and subset; empty where something was not measured."""
    samples = [found.samples() for found in scores if found is not None]
    if len(samples) < len(scores):
        return []
    return [np.array(part, dtype=np.float64) for part in zip(*samples, strict=True)]


def agreement(name: str, ranking: list[np.ndarray], other_name: str, other: list[np.ndarray]) -> Agreement:
    """Both: nDCG@10 `[checkpoints, queries]`, one array a task; equal tasks are redrawn alike."""
    count = len(other[0])
    tau: float | None = None
    interval: tuple[float, float] | None = None
    if count >= LEAST:
        tau = kendall(centre(ranking), centre(other))
        pairs = zip(redrawn_means(ranking, RESAMPLES), redrawn_means(other, RESAMPLES), strict=True)
        known = [value for pair in pairs if (value := kendall(*pair)) is not None]
        if tau is not None and len(known) == RESAMPLES:
            ends = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            interval = float(ends[0]), float(ends[1])
    sentence = agreement_sentence(name, other_name, count, tau, interval)
    return Agreement(ranking=name, other=other_name, checkpoints=count, tau=tau, interval=interval, sentence=sentence)


def centre(ranking: list[np.ndarray]) -> np.ndarray:
    """The mean over tasks of the means over queries `[checkpoints]`."""
    means: np.ndarray = np.mean([part.mean(axis=1) for part in ranking], axis=0)
    return means


def kendall(one: np.ndarray, other: np.ndarray) -> float | None:
    """Tau-b; None where all values of a ranking are equal."""
    from scipy.stats import kendalltau

    tau = float(kendalltau(one, other, method="asymptotic").statistic)
    return tau if math.isfinite(tau) else None


def agreement_sentence(name: str, other: str, count: int, tau: float | None, interval: tuple[float, float] | None) -> str:
    """What tau allows to be said."""
    begin = f"{name[0].upper()}{name[1:]}"
    if count < LEAST:
        return f"{begin} and {other}: {count} checkpoint{'' if count == 1 else 's'} cannot show whether they rank alike."
    if tau is None:
        return f"{begin} and {other} cannot be compared as rankings: in one of them all checkpoints are equal."
    ranks = "(lower is better) ranks" if name == LOSS else "ranks"
    if interval is None or interval[0] <= 0 <= interval[1]:
        verdict = f"these queries do not show whether it is the order of {other} or not"
    elif tau > 0:
        verdict = f"much as {other} does" if tau >= 0.6 else f"somewhat as {other} does"
    else:
        verdict = f"against the order of {other}"
    spread = "" if interval is None else f", 95% interval {interval[0]:+.2f} to {interval[1]:+.2f} over queries"
    if verdict.startswith("these"):
        return f"{begin} {ranks} the {count} checkpoints with Kendall's tau {tau:+.2f}{spread}: {verdict}."
    return f"{begin} {ranks} the {count} checkpoints {verdict}: Kendall's tau {tau:+.2f}{spread}."
