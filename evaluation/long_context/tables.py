"""The tables that `mecellem evaluate long-context` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.fill_mask.results import Rate
from evaluation.fill_mask.tables import DASH, number, percent
from evaluation.long_context.results import LongContextResults, ModelCurves

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def needle_table(model: ModelCurves) -> Table:
    """Accuracy in per cent: a row a length, a column a depth, and the mean over depths; skipped lengths as dashes."""
    from rich.table import Table

    candidates = model.needle[0].candidates
    title = f"{model.name}: needle found, % (chance {100 / candidates:.0f}%), by per cent of the document in front of it"
    table = Table(title=title, title_justify="left")
    depths = sorted({cell.depth for cell in model.needle})
    for name in ("tokens", *(f"{depth:g}" for depth in depths), "all", "MRR"):
        table.add_column(name, justify="right", no_wrap=True)
    for length in sorted({cell.length for cell in model.needle}):
        row = {cell.depth: cell for cell in model.needle if cell.length == length}
        mean = sum(cell.accuracy.value for cell in row.values()) / len(row)
        mrr = sum(cell.mrr for cell in row.values()) / len(row)
        cells = [f"{100 * row[depth].accuracy.value:.0f}" for depth in depths]
        table.add_row(f"{length:,}", *cells, f"{100 * mean:.0f}", f"{mrr:.2f}")
    return table


def position_table(model: ModelCurves) -> Table:
    """How much nearer a document's vector is to the first quarter of its pieces than to the last."""
    from rich.table import Table

    table = Table(title=f"{model.name}: cosine to the document's own pieces", title_justify="left")
    for name in ("tokens", "documents", "first", "last", "1st - 4th quarter", "95%"):
        table.add_column(name, justify="right", no_wrap=True)
    for curve in model.positions:
        lead = number(curve.first_minus_last, 3)
        ends = f"{curve.similarity[0]:.3f}", f"{curve.similarity[-1]:.3f}"
        table.add_row(f"{curve.length:,}", str(curve.documents), *ends, *lead)
    return table


def masking_table(model: ModelCurves) -> Table:
    """A row a length: all places, the last ones, and what the long context adds."""
    from rich.table import Table

    table = Table(title=f"{model.name}: hidden tokens, nats and % right", title_justify="left")
    for name in ("tokens", "right", "nats", "last places", "there", "vs. short", "95%"):
        table.add_column(name, justify="right", no_wrap=True)
    for curve in model.masking:
        last = curve.buckets[-1]
        table.add_row(
            f"{curve.length:,}",
            percent(curve.accuracy)[0],
            number(curve.nll, 2)[0],
            f"{last.start:,}–{last.end:,}",
            number(last.nll, 2)[0],
            *change(curve.against_short),
        )
    return table


def change(rate: Rate | None) -> list[str]:
    """A difference with its sign, and its interval."""
    if rate is None:
        return [DASH, DASH]
    spread = DASH if rate.interval is None else f"{rate.interval[0]:+.2f}, {rate.interval[1]:+.2f}"
    return [f"{rate.value:+.2f}", spread]


def model_tables(model: ModelCurves) -> list[Table]:
    """The tables of what a model was measured by."""
    makes = ((needle_table, model.needle), (position_table, model.positions), (masking_table, model.masking))
    return [make(model) for make, measured in makes if measured]


def lines(results: LongContextResults) -> list[str]:
    """What every model reads, what was not measured, and what the tables' words mean."""
    found = []
    for model in results.models:
        found.append(f"{model.name} ({model.role}): {model.reads}")
        found += [f"{model.name}: {item.length:,} tokens not measured, {item.reason}" for item in model.skipped]
    if any(len(model.masking) > 1 for model in results.models):
        short = min(curve.length for model in results.models for curve in model.masking)
        found.append(f"vs. short: loss minus that of the very same tokens in windows of {short:,}; below 0 the context helps")
    return found


def print_results(console: Console, results: LongContextResults) -> None:
    """The tables of every model, and what was not measured."""
    for model in results.models:
        for table in model_tables(model):
            console.print(table)
    for line in lines(results):
        console.print(line, markup=False)
