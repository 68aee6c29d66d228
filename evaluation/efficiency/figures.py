"""The figures that systems are compared by: three qualities, nine costs, their units and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.results import Record

Quality = Literal["mean", "retrieval", "legal"]
Cost = Literal[
    "parameters", "backbone_parameters", "dimensions", "index_bytes", "query_p50", "query_p95", "documents_per_second",
    "memory", "load",
]  # fmt: skip

QUALITIES: dict[str, str] = {"mean": "mean", "retrieval": "retr.", "legal": "legal"}  # percent, more is better
INDEX_DOCUMENTS = 1_000_000
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}  # of one number of a vector


@dataclass(frozen=True, slots=True)
class CostKind:
    """A cost: its name for people, a short heading, its unit, and whether more of the figure is less of a cost."""

    label: str
    short: str
    unit: str
    more_is_better: bool = False

    @property
    def title(self) -> str:
        """`query p95 (s)`."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


COSTS: dict[Cost, CostKind] = {
    "parameters": CostKind("parameters", "params", ""),
    "backbone_parameters": CostKind("parameters without embeddings", "no emb.", ""),
    "dimensions": CostKind("vector width", "width", ""),
    "index_bytes": CostKind("index per million documents", "index B", "B"),
    "query_p50": CostKind("query p50", "p50 s", "s"),
    "query_p95": CostKind("query p95", "p95 s", "s"),
    "documents_per_second": CostKind("documents per second", "docs/s", "1/s", more_is_better=True),
    "memory": CostKind("memory", "memory B", "B"),
    "load": CostKind("time to the first answer", "load s", "s"),
}


class Figure(Record):
    """A number and where it comes from."""

    value: float
    origin: str


class Row(Record):
    """One system in one benchmark. A figure that is not known is absent, never 0. `reported`: its published efficiency."""

    name: str
    figures: dict[str, Figure]
    reported: Figure | None = None

    def value(self, name: str) -> float | None:
        """A figure's number, None where it is not known."""
        figure = self.figures.get(name)
        return None if figure is None else figure.value


def index_figures(figures: Mapping[str, Figure], precision: str) -> dict[str, Figure]:
    """`index_bytes` from the vector width: the vectors alone, as an exact index stores them."""
    width = figures.get("dimensions")
    if width is None:
        return {}
    size = width.value * BYTES[precision] * INDEX_DOCUMENTS
    return {
        "index_bytes": Figure(value=size, origin=f"vector width x {BYTES[precision]} B ({precision}) x {INDEX_DOCUMENTS:,}")
    }


def worse(cost: Cost, value: float) -> float:
    """A cost's figure turned so that more is worse."""
    return 1 / value if COSTS[cost].more_is_better else value
