"""`selection.json`: which checkpoint of a run to keep, why, and how sure that is."""

from __future__ import annotations

from typing import Any, Literal

from evaluation.fill_mask.results import FillMaskScores, Sample
from evaluation.leaderboard.results import TaskResult
from evaluation.results import LeftOut, Record
from evaluation.tasks.facts import TaskFacts

FORMAT = "mecellem.selection/2"
Metric = Literal["post_trained", "mean_pooled"]

# What tables call the systems that stand beside the checkpoints, and the kept checkpoint's own two.
SYSTEMS = {
    "bm25": "BM25",
    "random_mean_pooled": "random weights, mean-pooled",
    "model_mean_pooled": "model, mean-pooled",
    "random_post_trained": "random weights, post-trained",
    "model_post_trained": "model, post-trained",
}


class SystemScores(Record):
    """One system on all tasks; `mean` of nDCG@10 weighs tasks equally (a task's subsets as tasks)."""

    tasks: dict[str, TaskResult]
    mean: float

    def samples(self) -> list[list[float]]:
        """nDCG@10 of every query, a list a task and subset."""
        return [list(found.values()) for task in self.tasks.values() for found in (task.per_item or {}).values()]


class PostTraining(Record):
    """What a post-training did: loss at every step, pairs, wall time in seconds, and where its model lies."""

    losses: list[float]
    pairs: int
    seconds: float
    folder: str


class CheckpointScores(Record):
    """One checkpoint: where it is in the run, the folder of its export, and its figures on the validation split.

    `sha256` covers all files of the export that vectors depend on. `mean_pooled` is None without tasks, `post_trained` and
    `training` also with a budget of 0.
    """

    step: int
    tokens: int | None
    checkpoint: str
    folder: str
    sha256: str
    fill_mask: FillMaskScores
    mean_pooled: SystemScores | None
    post_trained: SystemScores | None
    training: PostTraining | None

    def scores(self, metric: Metric) -> SystemScores | None:
        """Those of one of the two ways to retrieve."""
        return self.post_trained if metric == "post_trained" else self.mean_pooled


class Comparison(Record):
    """The peak minus another checkpoint in mean nDCG@10: its paired bootstrap interval, and whether 0 is outside.

    `step` 0 is no checkpoint but random weights, treated alike.
    """

    step: int
    difference: float
    interval: tuple[float, float]
    real: bool


class Agreement(Record):
    """Whether one ranking of the checkpoints is another one's: Kendall's tau-b, None where it does not exist.

    `interval` (95%) redraws queries; the loss has none and stays. A loss ranks from low to high, so 1 is full agreement.
    """

    ranking: str
    other: str
    checkpoints: int
    tau: float | None
    interval: tuple[float, float] | None
    sentence: str


class ModelFacts(Record):
    """The kept checkpoint's export. `sha256` covers all files that vectors depend on."""

    folder: str
    sha256: str
    parameters: int
    vocabulary: int
    layers: int
    hidden: int
    verification: dict[str, Any] | None


class TestFigures(Record):
    """What the kept checkpoint and the baselines reach on the test split, which did not choose. `systems`: of `SYSTEMS`."""

    tasks: list[TaskFacts]
    left_out: list[LeftOut]
    systems: dict[str, SystemScores]
    fill_mask: FillMaskScores
    unigram: FillMaskScores
    samples: list[Sample]


class Selection(Record):
    """Everything that was measured on the validation split and decided, and the kept checkpoint's test figures.

    `budget`: steps of post-training; `metric`: what the peak is a peak of. `peak_step` and its `peak_tokens` are None where
    there is no task; `loss_step` has the lowest fill-mask loss. `comparisons` sets the peak against the other checkpoints,
    `over_random` (step 0) against random weights. `chosen_by` is "retrieval", or "fill-mask" where the peak is not above random
    weights or there is no task. `best_*` is what was kept: `best_sha256` of the exported weights, `best_embedding` the
    post-trained model's folder. `score` is its mean in `metric`, `rescored` the same after loading it again.
    """

    format: str = FORMAT
    run: str
    corpus: dict[str, str]
    data: list[str]
    budget: int
    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: str
    tasks: list[TaskFacts]
    left_out: list[LeftOut]
    checkpoints: list[CheckpointScores]
    unigram: FillMaskScores
    baselines: dict[str, SystemScores]
    metric: Metric
    peak_step: int | None
    peak_tokens: int | None
    loss_step: int
    loss_tokens: int | None
    over_random: Comparison | None
    comparisons: list[Comparison]
    confidence: float
    distinguishable: bool
    agreement: list[Agreement]
    chosen_by: Literal["retrieval", "fill-mask"]
    best_step: int
    best_checkpoint: str
    best_folder: str
    best_sha256: str
    best_embedding: str | None
    best_embedding_sha256: str | None
    score: float | None
    rescored: float | None
    rule: str
    sentence: str
    model: ModelFacts
    test: TestFigures
    seconds: float

    @property
    def best(self) -> CheckpointScores:
        """The kept checkpoint."""
        return next(row for row in self.checkpoints if row.step == self.best_step)
