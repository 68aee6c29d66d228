"""What `mecellem evaluate long-context` writes. Intervals are 95% bootstrap intervals."""

from __future__ import annotations

from typing import Any

from evaluation.fill_mask.results import Rate
from evaluation.results import Record

FORMAT = "mecellem.long_context/1"


class NeedleCell(Record):
    """One length and depth. `accuracy`: share of questions nearest to their own document (chance: 1 / `candidates`).

    `margin`: how much nearer, in cosine, the own document is than the others on average.
    """

    length: int
    depth: float
    queries: int
    candidates: int
    accuracy: Rate
    mrr: float
    margin: float


class NeedleLength(Record):
    """All depths of one length."""

    cells: list[NeedleCell]
    seconds: float


class PositionCurve(Record):
    """Cosine of documents and their own pieces by place, averaged over the pieces' orders.

    `relative` is minus the document's mean over all places; `first_minus_last`: the first quarter of the places minus the last.
    """

    length: int
    documents: int
    similarity: list[float]
    relative: list[Rate]
    first_minus_last: Rate
    seconds: float


class Bucket(Record):
    """Hidden tokens at places `start` <= place < `end` of their sequence. `against_short`: loss minus that of the very same
    tokens in windows of the shortest length, in nats (below 0: the long context helps).
    """

    start: int
    end: int
    tokens: int
    accuracy: Rate
    nll: Rate
    against_short: Rate | None


class MaskingLength(Record):
    """A masked language model on sequences of one length."""

    length: int
    windows: int
    tokens: int
    accuracy: Rate
    nll: Rate
    against_short: Rate | None
    buckets: list[Bucket]
    seconds: float


class Skipped(Record):
    """A length that was not measured, and why."""

    length: int
    reason: str


class ModelCurves(Record):
    """One model. `context`: tokens that it sees, None without a limit; what it was not measured by is empty."""

    name: str
    spec: str
    role: str
    sha256: str
    context: int | None
    reads: str
    needle: list[NeedleCell]
    positions: list[PositionCurve]
    masking: list[MaskingLength]
    skipped: list[Skipped]
    seconds: float


class LongContextResults(Record):
    """All models of one call."""

    format: str = FORMAT
    files: list[str]
    sha256: str
    documents: int
    models: list[ModelCurves]
    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: str
