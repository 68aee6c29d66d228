"""A sweep's table, its lines of text, its figures and its CSV file."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.drawing import Theme, new_figure
from slurm.bench.results import Found, Row
from slurm.bench.scaling import FEWEST

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from evaluation.report.results_pages import Content, Drawing

NONE = "–"


def percent(value: float | None) -> str:
    """`34.1%`, or a dash."""
    return NONE if value is None else f"{value:.1%}"


def table(found: Found) -> Table:
    """Every point: what it is, how fast, how much of the peak, how well it scales, memory; predictions in brackets."""
    from rich.table import Table

    shown = Table(title="tokens per second of one rank, by point")
    for head in ("nodes", *found.sweep.axes, "tokens/s/rank", "MFU", "efficiency", "step, s", "memory, GB", "predicted before"):
        shown.add_column(head, justify="left" if head in found.sweep.axes else "right")
    shown.add_column("state")
    for row in found.rows:
        guess = row.measurement is None

        def cell(text: str, guess: bool = guess) -> str:
            return f"({text})" if guess and text != NONE else text

        memory = f"{row.measurement.peak_memory_bytes / 1e9:.1f}" if row.measurement else NONE
        before = NONE
        if row.measurement and row.predicted is not None:
            before = f"{row.predicted / row.measurement.step_seconds - 1:+.1%}"
        shown.add_row(
            str(row.point.nodes),
            *row.point.choices.values(),
            cell(NONE if row.speed is None else f"{row.speed:,.0f}"),
            cell(percent(row.mfu)),
            cell(percent(found.efficiency(row))),
            cell(NONE if row.seconds is None else f"{row.seconds:.3f}"),
            memory,
            before,
            row.state,
        )
    return shown


def lines(found: Found) -> Iterator[str]:
    """What stands below the table: points without figures, the fastest, and how far predictions are off."""
    for row in found.rows:
        if row.why:
            yield f"{row.point.name}: {row.state}: {row.why}"
    measured = [row for row in found.rows if row.measurement]
    if measured:
        best = max(measured, key=lambda row: row.speed or 0)
        yield f"fastest a rank: {best.point.name}, {best.speed:,.0f} tokens/s, MFU {percent(best.mfu)}"
    for row in measured:
        if len(row.measurement.nodes if row.measurement else ()) != row.point.nodes:
            yield f"{row.point.name}: ran on {len(row.measurement.nodes if row.measurement else ())} nodes"
    yield from accuracy_lines(found)


def accuracy_lines(found: Found) -> Iterator[str]:
    """How far predictions are off, where it could be tried."""
    told, count = found.accuracy, sum(row.measurement is not None for row in found.rows)
    if told.typical is None:
        yield f"predictions need {FEWEST} measured points, {FEWEST + 1} to say how far off they are; there are {count}"
        return
    worst = max(told.left_out.items(), key=lambda item: abs(item[1]))
    name = next(row.point.name for row in found.rows if row.point.folder == worst[0])
    yield (
        f"predicted without themselves, {len(told.left_out)} points are off by {told.typical:.1%} (median); worst: {name}, "
        f"{worst[1]:+.1%}"
    )
    if told.unseen:
        yield f"{told.unseen} points could not be predicted without themselves: nothing else measured has their parts"
    if told.beyond:
        errors = ", ".join(f"{error:+.1%}" for error in told.beyond.values())
        yield f"predicted from fewer nodes, those on the most nodes are off by {errors}"


def scaling_figure(found: Found, theme: Theme) -> Figure:
    """Speed of a rank over nodes, a line for every combination; hollow points are predicted."""
    figure, axes = new_figure(8.6, 4.4)
    colours, markers = (theme.model, theme.baseline, theme.mark, theme.quiet), ("o", "s", "^", "D", "v", "P")
    styles = itertools.cycle(itertools.product(markers, colours))
    series: dict[tuple[str, ...], list[Row]] = {}
    for row in found.rows:
        if row.speed is not None:
            series.setdefault(tuple(row.point.choices.values()), []).append(row)
    for (names, rows), (marker, colour) in zip(series.items(), styles, strict=False):
        nodes, speeds = [row.point.nodes for row in rows], [row.speed or 0.0 for row in rows]
        axes.plot(nodes, speeds, color=colour, linewidth=1, alpha=0.6)
        for measured in (True, False):
            chosen = [(row.point.nodes, row.speed) for row in rows if (row.measurement is not None) == measured]
            if chosen:
                label = " ".join(names) or found.sweep.recipe
                face = colour if measured else "none"
                text = label if measured else f"{label} (predicted)"
                axes.plot(*zip(*chosen, strict=True), marker, color=colour, markerfacecolor=face, linestyle="", label=text)
    axes.set_xscale("log", base=2)
    axes.set_xticks(found.sweep.all_nodes, [str(nodes) for nodes in found.sweep.all_nodes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("nodes")
    axes.set_ylabel("tokens/s of one rank")
    axes.set_title("Speed of a rank")
    if series:
        axes.legend(ncols=2, fontsize=7.5)
    return figure


def error_figure(found: Found, theme: Theme) -> Figure:
    """Relative errors of predictions of points that the fit had not seen."""
    names = {row.point.folder: row.point.name for row in found.rows}
    figure, axes = new_figure(8.6, 1.4 + 0.26 * len(found.accuracy.left_out))
    shown = list(found.accuracy.left_out.items())[::-1]
    axes.barh([names[folder] for folder, _ in shown], [100 * error for _, error in shown], color=theme.model, height=0.6)
    axes.axvline(0, color=theme.quiet, linewidth=0.8)
    axes.set_xlabel("predicted against measured seconds of a step, %")
    axes.set_title("Every measured point, predicted from the others")
    return figure


def content(found: Found) -> Content:
    """The page."""
    from evaluation.report.results_pages import Content

    figures: dict[str, tuple[Drawing, str, str]] = {
        "scaling": (
            partial(scaling_figure, found),
            "Tokens per second of one rank over nodes",
            "Filled points are measured, hollow ones predicted from them.",
        )
    }
    if found.accuracy.left_out:
        caption = "Each bar is a fit of all other points. Negative: it was faster in the prediction than on the machine."
        figures["errors"] = (partial(error_figure, found), "How far off predictions are", caption)
    measured = [row.measurement for row in found.rows if row.measurement]
    devices = ", ".join(dict.fromkeys(item.device for item in measured)) or "nothing measured yet"
    return Content(
        heading=f"{found.sweep.recipe}: how fast it trains here",
        headline=f"{len(measured)} of {sum(row.point.measured for row in found.rows)} points measured; the rest predicted.",
        tables=[table(found)],
        notes=list(lines(found)),
        figures=figures,
        settings=found.sweep.model_dump(),
        versions=measured[-1].versions if measured else {},
        hardware=f"{devices}, {found.sweep.ranks_per_node} ranks a node",
        over="Mecellem · speed on a cluster",
    )


def csv_text(found: Found) -> str:
    """The table's figures without rounding, an empty cell for what is not there."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ("tokens_per_second_per_rank", "mfu", "efficiency", "step_seconds", "peak_memory_bytes", "predicted_step_seconds")
    writer.writerow(["nodes", "ranks", *found.sweep.axes, "state", *heads])
    for row in found.rows:
        memory = row.measurement.peak_memory_bytes if row.measurement else None
        figures = (row.speed, row.mfu, found.efficiency(row), row.measurement and row.measurement.step_seconds, memory)
        values = [row.point.nodes, row.point.ranks, *row.point.choices.values(), row.state, *figures, row.predicted]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def write_page(found: Found, folder: Path) -> Path:
    """`FOLDER/report.html` and `results.csv`; the page's path."""
    from evaluation.report.results_pages import draw, render
    from mecellem.files import atomic_write

    page = content(found)
    with atomic_write(folder / "results.csv") as handle:
        handle.write(csv_text(found))
    with atomic_write(folder / "report.html") as handle:
        handle.write(render(page, draw(page), folder / "results.csv"))
    return folder / "report.html"
