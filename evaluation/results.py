"""The figures that evaluation writes and the report reads: `results.json` of a model, `selection.json` of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mecellem.errors import UserError
from mecellem.files import atomic_write

FORMAT = "mecellem.evaluation/1"


class Record(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FillMaskCounts(Record):
    """Rates over `masked` tokens; `nll` in nats per token; `top1_mask_only` is over those shown as [MASK]."""

    documents: int
    masked: int
    top1: float
    top5: float
    top1_mask_only: float | None
    nll: float


class FillMaskScores(Record):
    """Fill-mask of one predictor: how text was masked, all sources together, and each source."""

    probability: float
    corruption: str
    all: FillMaskCounts
    by_source: dict[str, FillMaskCounts]


class Guess(Record):
    """One of a model's best tokens with its probability."""

    token: str
    probability: float


class Sample(Record):
    """A sentence `before` + `truth` + `after` with `truth` hidden, and the model's guesses, best first."""

    id: str
    source: str
    before: str
    truth: str
    after: str
    truth_probability: float
    guesses: list[Guess]


class SampleList(Record):
    """The filled masks of one model."""

    samples: list[Sample]


class TaskFacts(Record):
    """What a retrieval task is. `sha256` covers its queries, documents and judgements."""

    name: str
    description: str
    source: str
    queries: int
    documents: int
    sha256: str


class LeftOut(Record):
    """A retrieval task that could not be built, and why."""

    name: str
    reason: str


class TaskScores(Record):
    """One system on one task. `recall_100` is None where the task has at most 100 documents: all systems would have 1.

    `interval` is the 95% bootstrap interval of the mean nDCG@10 over queries; `per_query` holds each query's nDCG@10.
    """

    ndcg_10: float
    interval: tuple[float, float]
    mrr_10: float
    recall_10: float
    recall_100: float | None
    per_query: dict[str, float]


class SystemScores(Record):
    """One system on all tasks; `mean_ndcg_10` weighs tasks equally."""

    tasks: dict[str, TaskScores]
    mean_ndcg_10: float
    seconds: float


class PostTraining(Record):
    """What a contrastive training did: loss at every step, pairs, wall time in seconds, and where its model lies."""

    losses: list[float]
    pairs: int
    seconds: float
    folder: str


class ModelFacts(Record):
    """Which model the figures belong to. `sha256` covers weights, config and tokenizer."""

    folder: str
    sha256: str
    parameters: int
    vocabulary: int
    layers: int
    hidden: int
    verification: dict[str, Any] | None


class EvaluationResults(Record):
    """`results.json`: every figure about one model folder.

    `systems`: those of `evaluation.measure.SYSTEMS`; without `tasks` it and `post_training` are empty.
    """

    format: str = FORMAT
    model: ModelFacts
    corpus: dict[str, str]
    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: str
    fill_mask: FillMaskScores
    unigram: FillMaskScores
    samples: list[Sample]
    tasks: list[TaskFacts]
    left_out: list[LeftOut]
    systems: dict[str, SystemScores]
    post_training: dict[str, PostTraining]
    seconds: float


class CheckpointScores(Record):
    """One checkpoint of a run: position, files (`results` from selection.json's folder) and its figures in short.

    `fill_mask_nll` is over all tokens asked for, `fill_mask_top1_mask_only` over those shown as [MASK]. `mean_pooled` and
    `post_trained` are mean nDCG@10, None without retrieval tasks.
    """

    step: int
    tokens: int | None
    checkpoint: str
    folder: str
    results: str
    sha256: str
    fill_mask_top1_mask_only: float | None
    fill_mask_nll: float
    mean_pooled: float | None
    post_trained: float | None


class Comparison(Record):
    """Winner minus another checkpoint in mean nDCG@10: its paired bootstrap interval, and whether 0 is outside."""

    step: int
    difference: float
    interval: tuple[float, float]
    real: bool


class Selection(Record):
    """`selection.json`: which checkpoint of a run to keep, why, and how sure that is.

    `peak_step` has the highest mean nDCG@10 after post-training; `comparisons` sets it against the other checkpoints and
    `over_random` (step 0) against random weights with the same post-training. `chosen_by` is "retrieval", or "fill-mask"
    where the peak is not above random weights; `best_*` is the checkpoint that was kept. What belongs to retrieval is
    None or empty where the test split allows no task; then `chosen_by` is "fill-mask".
    """

    format: str = FORMAT
    checkpoints: list[CheckpointScores]
    peak_step: int | None
    over_random: Comparison | None
    chosen_by: Literal["retrieval", "fill-mask"]
    best_step: int
    best_checkpoint: str
    best_folder: str
    best_embedding: str | None
    best_sha256: str
    score: float | None
    rescored: float | None
    distinguishable: bool
    comparisons: list[Comparison]
    confidence: float
    rule: str
    sentence: str


Model = TypeVar("Model", bound=BaseModel)


def read_record(path: Path, kind: type[Model], make: str) -> Model:
    """Read a JSON file as `kind`. Raises `UserError` (with `make` as advice) when it is missing or does not fit."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {make}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; remove it and {make}") from None


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record as indented JSON, whole or not at all."""
    with atomic_write(path) as handle:
        handle.write(record.model_dump_json(indent=1) + "\n")
