"""The picture: every system's score on every task, with 95% intervals where single items were scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.drawing import LIGHT, Theme, new_figure, png, styled
from evaluation.leaderboard.results import Leaderboard
from evaluation.leaderboard.tables import ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def colours(theme: Theme) -> tuple[str, ...]:
    """One a model; the sixth begins again. BM25 has its own."""
    return (theme.model, theme.mark, "#2a8a5c", "#b03060", theme.quiet)


def draw(board: Leaderboard) -> bytes:
    """The figure as PNG, for light pages."""
    with styled(LIGHT):
        return png(board_figure(board, LIGHT))


def board_figure(board: Leaderboard, theme: Theme) -> Figure:
    """A row a task, categories one below the other, a dot a system."""
    rows = [(mean.name, task) for mean in board.means[2:] for task in mean.tasks]
    height = 1.2 + len(rows) * max(0.34, 0.12 * len(board.systems)) + 0.22 * (len(board.systems) // 3 + 1)
    figure, axes = new_figure(8.6, height)
    models = [system.name for system in ranked(board) if system.kind != "bm25"]
    for number, system in enumerate(ranked(board)):
        marks = colours(theme)
        colour = theme.baseline if system.kind == "bm25" else marks[models.index(system.name) % len(marks)]
        shift = (0.5 - (number + 0.5) / len(board.systems)) * 0.6
        points = [
            (len(rows) - 1 - place + shift, system.tasks[task]) for place, (_, task) in enumerate(rows) if task in system.tasks
        ]
        for place, (where, result) in enumerate(points):
            if result.interval is not None:
                axes.plot(result.interval, (where, where), color=colour, linewidth=2, alpha=0.45)
            marker = "D" if system.kind == "bm25" else "o"
            axes.plot(result.main_score, where, marker, color=colour, markersize=5, label=None if place else system.name)
    label_rows(axes, rows, {task.name: task.main_metric for task in board.tasks}, theme)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3)
    return figure


def label_rows(axes: Axes, rows: list[tuple[str, str]], metrics: dict[str, str], theme: Theme) -> None:
    """Names of tasks with their metric, and a line between categories."""
    axes.set_yticks(range(len(rows)), [f"{task}\n{group}, {metrics[task]}" for group, task in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    low = min(0.0, axes.get_xlim()[0])
    axes.set_xlim(low, 1)
    axes.set_title("Scores by task, with 95% intervals")
    axes.grid(axis="y", visible=False)
    for place in range(1, len(rows)):
        if rows[place][0] != rows[place - 1][0]:
            axes.axhline(len(rows) - place - 0.5, color=theme.quiet, linewidth=0.6)
