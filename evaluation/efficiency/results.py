"""The figures of one call, as its JSON file holds them."""

from __future__ import annotations

from typing import Any

from evaluation.efficiency.figures import Row
from evaluation.results import Record

FORMAT = "mecellem.efficiency/1"


class Costs(Record):
    """What one system costs on this machine. Times in seconds, memory in bytes, queries alone, documents in batches.

    `load` is from opening the model to the first query's vector, without the import of libraries; `documents_per_second` is
    of the median pass. `memory` is what the system needs beside Python and its libraries, `libraries_memory` what those need;
    `threads` are those that torch computed with; on a GPU `gpu_memory` is the most that was allocated there.
    """

    name: str
    spec: str
    sha256: str
    kind: str
    dtype: str
    threads: int
    pooling: str
    parameters: int | None
    embedding_parameters: int | None
    dimensions: int
    max_seq_length: int | None
    load: float
    query_p50: float
    query_p95: float
    queries: int
    query_characters: float
    documents_per_second: float
    pass_seconds: list[float]
    documents: int
    document_characters: float
    truncated: int
    memory: int
    libraries_memory: int
    gpu_memory: int | None


class SystemScore(Record):
    """One system under one definition. `score` and `rank` are None where an input is missing, which `missing` names."""

    name: str
    score: float | None
    rank: int | None
    inputs: dict[str, float]
    missing: list[str]


class DefinitionScores(Record):
    """All systems under one definition; `best` holds the references of its ratios, over the systems that have a score."""

    name: str
    formula: str
    origin: str
    best: dict[str, float]
    systems: list[SystemScore]


class Point(Record):
    """A system in a plane of quality and cost. `on_front`: no other one is as good for less, or better for as much."""

    name: str
    quality: float
    cost: float
    on_front: bool


class Front(Record):
    """Quality against one cost, over the systems that have both."""

    quality: str
    cost: str
    points: list[Point]


class Board(Record):
    """The systems of one benchmark: only these are set against each other."""

    benchmark: str
    origin: str
    notes: list[str]
    rows: list[Row]
    scores: list[DefinitionScores]
    fronts: list[Front]


class EfficiencyResults(Record):
    """All boards, and what was measured for them."""

    format: str = FORMAT
    boards: list[Board]
    measured: list[Costs]
    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: str
