"""The figures of one call, as its JSON file holds them."""

from __future__ import annotations

from typing import Any

from evaluation.results import Record

FORMAT = "mecellem.perplexity/1"
Interval = tuple[float, float] | None  # 95%; None for fewer than two documents


class Score(Record):
    """One model on one set of documents. `nll` in nats per token; `bytes` of the texts' UTF-8."""

    documents: int
    tokens: int
    bytes: int
    nll: float
    perplexity: float
    perplexity_interval: Interval
    bits_per_byte: float
    bits_per_byte_interval: Interval


class Change(Record):
    """A model beside the first one on the same documents: later minus first.

    `perplexity` is relative (-0.36: 36% lower) and only there where both cut the texts into the same tokens; `real` says
    that the interval of the difference in bits per byte excludes 0.
    """

    perplexity: float | None
    perplexity_interval: Interval
    bits_per_byte: float
    bits_per_byte_interval: Interval
    real: bool


class ModelScores(Record):
    """One model. `change` is None for the first; `long_documents` did not fit into one window."""

    name: str
    folder: str
    kind: str
    digest: str
    tokenizer_sha256: str
    seconds: float
    long_documents: int
    all: Score
    by_domain: dict[str, Score]
    change: Change | None
    change_by_domain: dict[str, Change]


class TextFacts(Record):
    """What was scored; `cut` by --max-characters, `left_out` by --max-documents, `unnamed` without --domain-field."""

    files: list[str]
    sha256: str
    documents: int
    characters: int
    bytes: int
    empty: int
    cut: int
    left_out: int
    unnamed: int = 0  # not in files of earlier versions


class PerplexityResults(Record):
    """All models of one call."""

    format: str = FORMAT
    texts: TextFacts
    models: list[ModelScores]
    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: str
