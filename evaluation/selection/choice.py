"""Which checkpoint of a run to keep: by retrieval after post-training, not by the pre-training loss.

The Mecellem paper reports that retrieval peaks before the masked-language-model loss is lowest. The highest mean nDCG@10 is the
peak. It is called better than another checkpoint only where the paired bootstrap interval of the difference excludes 0, with
the confidence raised for the number of comparisons (Bonferroni).

A peak that is not above random weights that were treated alike tells nothing about what was learnt: early in a run retrieval
only falls, because training first destroys the word overlap that random weights measure, and the rule would keep the least
trained checkpoint. Retrieval then cannot choose, and the lowest fill-mask loss does; so it does where there is no task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.leaderboard import means
from evaluation.selection.results import CheckpointScores, Comparison, Metric, SystemScores

CONFIDENCE = 0.95
ALIKE = {"post_trained": "random weights with the same post-training", "mean_pooled": "random weights"}
WHAT = {"post_trained": "after post-training", "mean_pooled": "mean-pooled"}


@dataclass(frozen=True, slots=True)
class Choice:
    """`peak` has the highest mean, None without tasks; `best` is kept; `comparisons` are the peak's with all others."""

    metric: Metric
    peak: CheckpointScores | None
    best: CheckpointScores
    chosen_by: Literal["retrieval", "fill-mask"]
    over_random: Comparison | None
    comparisons: list[Comparison]
    confidence: float
    sentence: str

    @property
    def distinguishable(self) -> bool:
        """Whether the peak is above every other checkpoint."""
        return self.peak is not None and all(item.real for item in self.comparisons)


def rule(metric: Metric) -> str:
    """How a checkpoint is chosen, in one sentence."""
    return (
        f"the highest mean nDCG@10 over tasks {WHAT[metric]}, if that is above {ALIKE[metric]}, else the lowest fill-mask "
        "loss (over all tokens asked for); where checkpoints cannot be told apart the highest mean still decides, and of equal "
        "means the earlier step"
    )


def compare(best: SystemScores, other: SystemScores, step: int, confidence: float) -> Comparison:
    """How sure it is that `best` beats `other`, which belongs to `step` (0: no training at all)."""
    found = means.compare(best.tasks, other.tasks, confidence=confidence)
    return Comparison(step=step, difference=found.difference, interval=found.interval, real=found.real)


def lowest_loss(rows: Sequence[CheckpointScores]) -> CheckpointScores:
    """The checkpoint with the lowest fill-mask loss; of equals the earlier one."""
    return min(rows, key=lambda row: (row.fill_mask.all.nll, row.step))


def choose(rows: Sequence[CheckpointScores], random: SystemScores | None, metric: Metric) -> Choice:
    """Apply the rule. `random`: random weights, treated as `metric` says; None where there is no task."""
    if random is None:
        best = lowest_loss(rows)
        sentence = f"No retrieval task can be had, so step {best.step} was kept for its lowest fill-mask loss."
        return Choice(metric, None, best, "fill-mask", None, [], CONFIDENCE, sentence)
    scores = {row.step: row.scores(metric) for row in rows}
    means_ = {step: found.mean for step, found in scores.items() if found is not None}
    assert len(means_) == len(rows), "every checkpoint was scored on the same tasks"
    peak = max(rows, key=lambda row: (means_[row.step], -row.step))
    others = [row for row in rows if row is not peak]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(others))
    top = scores[peak.step]
    assert top is not None
    comparisons = [compare(top, found, row.step, confidence) for row in others if (found := scores[row.step]) is not None]
    over_random = compare(top, random, 0, CONFIDENCE)
    by_retrieval = over_random.real and over_random.difference > 0
    best = peak if by_retrieval else lowest_loss(rows)
    sentence = selection_sentence(best.step, peak.step, over_random, comparisons, metric)
    chosen_by: Literal["retrieval", "fill-mask"] = "retrieval" if by_retrieval else "fill-mask"
    return Choice(metric, peak, best, chosen_by, over_random, comparisons, confidence, sentence)


def selection_sentence(best: int, peak: int, over_random: Comparison, comparisons: Sequence[Comparison], metric: Metric) -> str:
    """What the comparisons allow to be said."""
    if not comparisons:
        return f"Step {best} is the only checkpoint, so nothing was compared."
    if not (over_random.real and over_random.difference > 0):
        side = "above" if over_random.difference > 0 else "below"
        return (
            f"No checkpoint retrieves distinguishably better than {ALIKE[metric]} (the nearest, step {peak}, is "
            f"{abs(over_random.difference):.3f} in nDCG@10 {side} them), so retrieval cannot choose here: step {best} was kept "
            "for its lowest fill-mask loss."
        )
    alike = [str(item.step) for item in comparisons if not item.real]
    if not alike:
        return (
            f"Step {best} retrieves better {WHAT[metric]} than every other checkpoint, by more than the choice of queries "
            "explains."
        )
    return (
        f"Step {best} has the highest mean, but is not distinguishable from step{'s' if len(alike) > 1 else ''} "
        f"{', '.join(alike)} on these queries: it was taken by the rule for ties, the highest mean."
    )
