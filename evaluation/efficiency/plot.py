"""The picture: quality against every cost, one panel a cost, with the front of the systems that nothing beats in both."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluation.drawing import LIGHT, Theme, new_figure, png, styled
from evaluation.efficiency.figures import COSTS
from evaluation.efficiency.results import Board, Front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X<>hp"
COLUMNS = 3


def draw(boards: Sequence[Board]) -> bytes:
    """The figure as PNG, for light pages. Needs a board with at least one front."""
    with styled(LIGHT):
        return png(pareto_figure(boards, LIGHT))


def colours(theme: Theme) -> tuple[str, ...]:
    """One a system; the seventh begins again, with another marker."""
    return (theme.model, theme.baseline, theme.mark, "#2a8a5c", "#b03060", theme.quiet)


def pareto_figure(boards: Sequence[Board], theme: Theme) -> Figure:
    """Panels of all boards below each other; costs are on logarithmic axes, cheap to the left."""
    panels = [(board, item) for board in boards for item in board.fronts]
    names = list(dict.fromkeys(row.name for board in boards for row in board.rows))
    columns = 2 if len(panels) in (2, 4) else min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    height = 2.7 * rows + 0.4 + 0.2 * -(-len(names) // 3)
    figure, grid = new_figure(8.6, height, rows, columns, gap=0.08, squeeze=False)
    for axes, (board, item) in zip(grid.flat, panels, strict=False):
        draw_front(axes, item, names, theme)
        if len(boards) > 1:
            axes.set_ylabel(f"{item.quality}, {board.benchmark}"[:44])
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    handles = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    shown = [name for name in names if name in handles]
    title = "filled: no other system is as good for less, or better for as much"
    figure.legend([handles[name] for name in shown], shown, loc="outside lower left", ncols=3, title=title, alignment="left")
    return figure


def draw_front(axes: Axes, item: Front, names: Sequence[str], theme: Theme) -> None:
    """One panel: every system a mark, the front a stair of what can be had for a cost."""
    kind = COSTS[item.cost]  # type: ignore[index]
    best = [point for point in item.points if point.on_front]
    axes.plot([point.cost for point in best], [point.quality for point in best], color=theme.quiet, linewidth=1.2,
              linestyle="--", drawstyle="steps-post", zorder=1)  # fmt: skip
    palette = colours(theme)
    for point in item.points:
        number = names.index(point.name)
        colour = palette[number % len(palette)]
        axes.plot(point.cost, point.quality, MARKERS[number % len(MARKERS)], color=colour, markersize=7, linestyle="none",
                  markerfacecolor=colour if point.on_front else theme.page, label=point.name)  # fmt: skip
    scale(axes, [point.cost for point in item.points], kind.more_is_better)
    axes.set_title(kind.title, fontsize=9.5)
    axes.set_ylabel(f"{item.quality} (%)")
    axes.margins(0.12)


def scale(axes: Axes, costs: Sequence[float], more_is_better: bool) -> None:
    """A logarithmic axis with 5, 50, 500K, 2G on it (plain where a cost is 0), turned where more is better."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    if min(costs) > 0:
        axes.set_xscale("log")
        wide = max(costs) / min(costs) > 30
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5), numticks=8))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if max(costs) / min(costs) < 2:
            axes.set_xscale("linear")
            axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if more_is_better:
        axes.invert_xaxis()


def points_csv(boards: Sequence[Board]) -> str:
    """The plot's data: a line a point."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("benchmark", "system", "quality", "quality_percent", "cost", "cost_value", "unit", "on_front"))
    for board in boards:
        for item in board.fronts:
            unit = COSTS[item.cost].unit  # type: ignore[index]
            for point in item.points:
                writer.writerow(
                    (board.benchmark, point.name, item.quality, point.quality, item.cost, point.cost, unit, int(point.on_front))
                )
    return text.getvalue()
