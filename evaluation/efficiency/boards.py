"""Boards: the rows of one benchmark, its qualities joined with what was measured here, ranked under every definition."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.efficiency.definitions import Definition
from evaluation.efficiency.figures import COSTS, Figure, index_figures
from evaluation.efficiency.results import Board, Costs
from evaluation.efficiency.scores import front, score_rows
from evaluation.efficiency.table import Table


def measured_figures(costs: Costs, hardware: str) -> dict[str, Figure]:
    """The costs of a system as figures of a row."""
    origin = f"measured: {hardware}"
    backbone = None
    if costs.parameters is not None and costs.embedding_parameters is not None:
        backbone = costs.parameters - costs.embedding_parameters
    values: dict[str, float | None] = {
        "parameters": costs.parameters,
        "backbone_parameters": backbone,
        "dimensions": costs.dimensions,
        "query_p50": costs.query_p50,
        "query_p95": costs.query_p95,
        "documents_per_second": costs.documents_per_second,
        "memory": costs.memory if costs.gpu_memory is None else costs.gpu_memory,
        "load": costs.load,
    }
    counted = ("parameters", "backbone_parameters", "dimensions")
    return {
        name: Figure(value=value, origin="counted" if name in counted else origin)
        for name, value in values.items()
        if value is not None
    }


def make_board(
    table: Table,
    measured: Sequence[Costs],
    definitions: Sequence[Definition],
    hardware: str,
    precision: str = "fp32",
    quality: str = "mean",
) -> Board:
    """One benchmark's systems under every definition, with a Pareto front for every cost that at least two of them have.

    A system that was measured here and has a row of the same name gets its measured costs there: of the two sources of a
    cost, the measured one is used. Measured systems that the table does not know are not on its board.
    """
    costs = {item.name: measured_figures(item, hardware) for item in measured}
    rows = []
    for row in table.rows:
        figures = row.figures | costs.get(row.name, {})
        rows.append(row.model_copy(update={"figures": figures | index_figures(figures, precision)}))
    fronts = [front(rows, quality, cost) for cost in COSTS]
    return Board(
        benchmark=table.benchmark,
        origin=table.origin,
        notes=table.notes,
        rows=rows,
        scores=[score_rows(definition, rows) for definition in definitions],
        fronts=[item for item in fronts if len(item.points) > 1],
    )
