"""The tables that `mecellem evaluate efficiency` prints: inputs, scores under every definition, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from evaluation.efficiency.figures import COSTS, QUALITIES
from evaluation.efficiency.results import Board, Costs, EfficiencyResults

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MISSING = "–"
ABREAST = 4  # definitions that a terminal of 80 columns has room for


def short(value: float | None) -> str:
    """`307M`, `1.02K`, `0.0213`, or a dash for what is missing."""
    if value is None:
        return MISSING
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "K")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'K' else size):.3g}{letter}"
    return f"{value:.4g}"


def percent(value: float | None) -> str:
    """Two decimals, or a dash."""
    return MISSING if value is None else f"{value:.2f}"


def new_table(title: str, columns: Sequence[str]) -> Table:
    """A table whose first column folds and whose others are numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("system", overflow="fold", min_width=12)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def input_table(board: Board) -> Table:
    """Every figure that at least one system has."""
    heads = {**QUALITIES, **{str(name): kind.short for name, kind in COSTS.items()}}
    known = [name for name in heads if any(row.value(name) is not None for row in board.rows)]
    table = new_table(f"{board.benchmark}: inputs", [heads[name] for name in known])
    for row in board.rows:
        table.add_row(row.name, *(percent(row.value(name)) if name in QUALITIES else short(row.value(name)) for name in known))
    return table


def score_tables(board: Board) -> Iterator[Table]:
    """Score and rank of every system under every definition, a few definitions a table, published efficiency beside them."""
    reported = any(row.reported for row in board.rows)
    for start in range(0, len(board.scores), ABREAST):
        part = board.scores[start : start + ABREAST]
        heads = [f"D{number}" for number in range(start + 1, start + len(part) + 1)]
        title = f"{board.benchmark}: efficiency and rank"
        table = new_table(title, [*heads, *(["published"] if reported else [])])
        for position, row in enumerate(board.rows):
            systems = [item.systems[position] for item in part]
            cells = [MISSING if system.score is None else f"{system.score:.2f} #{system.rank}" for system in systems]
            if reported:
                cells.append(percent(None if row.reported is None else row.reported.value))
            table.add_row(row.name, *cells)
        yield table


def legend(board: Board) -> list[str]:
    """What every definition is and whose, what systems lack for them, and the board's notes."""
    lines = [f"D{number} {item.name}: {item.formula}  [{item.origin}]" for number, item in enumerate(board.scores, start=1)]
    for position, row in enumerate(board.rows):
        lacking = dict.fromkeys(name for item in board.scores for name in item.systems[position].missing)
        if lacking:
            lines.append(f"missing of {row.name}: {', '.join(lacking)}")
    return [*lines, *(f"note: {note}" for note in board.notes)]


def cost_table(measured: Sequence[Costs]) -> Table:
    """What was measured in this call."""
    columns = {"params": [short(costs.parameters) for costs in measured]}
    columns["width"] = [str(costs.dimensions) for costs in measured]
    columns["load s"] = [f"{costs.load:.2f}" for costs in measured]
    columns["p50 ms"] = [f"{1e3 * costs.query_p50:.2f}" for costs in measured]
    columns["p95 ms"] = [f"{1e3 * costs.query_p95:.2f}" for costs in measured]
    columns["docs/s"] = [short(costs.documents_per_second) for costs in measured]
    columns["MB"] = [f"{costs.memory / 1e6:.0f}" for costs in measured]
    if any(costs.gpu_memory is not None for costs in measured):
        columns["GPU MB"] = [MISSING if costs.gpu_memory is None else f"{costs.gpu_memory / 1e6:.0f}" for costs in measured]
    if any(costs.truncated for costs in measured):
        columns["cut"] = [f"{costs.truncated / costs.documents:.0%}" for costs in measured]
    table = new_table("measured costs", [*columns])
    for costs, *cells in zip(measured, *columns.values(), strict=True):
        table.add_row(costs.name, *cells)
    return table


def measured_line(results: EfficiencyResults) -> str:
    """On what costs were measured, and what some of them mean."""
    first = results.measured[0]
    return (
        f"{results.hardware}, threads {first.threads}; "
        f"queries of {first.query_characters:.0f} and documents of {first.document_characters:.0f} "
        f"characters on average; memory is without the {first.libraries_memory / 1e6:.0f} MB of Python and its libraries, "
        "cut are documents that are longer than the context"
    )


def print_results(console: Console, results: EfficiencyResults) -> None:
    """Measured costs, then of every board its inputs, its scores and what they mean."""
    if results.measured:
        console.print(cost_table(results.measured))
        console.print(measured_line(results), markup=False)
    for board in results.boards:
        console.print(input_table(board))
        for table in score_tables(board):
            console.print(table)
        for line in legend(board):
            console.print(line, markup=False)
