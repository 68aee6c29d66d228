"""The picture: every axis' difference between two models with its interval, as measured and at equal length."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from evaluation.drawing import LIGHT, Theme, new_figure, png, styled
from evaluation.reward.results import Interval, RewardResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(results: RewardResults) -> bytes:
    """The figure as PNG, for light pages."""
    with styled(LIGHT):
        return png(reward_figure(results, LIGHT))


def reward_figure(results: RewardResults, theme: Theme) -> Figure:
    """A panel a judge, a row an axis; right of zero the continued model scores higher."""
    axes_of = [len(scores.comparisons) for scores in results.judges]
    figure, panels = new_figure(
        8.6, 0.9 + sum(0.75 + 0.42 * count for count in axes_of), len(axes_of), 1, gap=0.1, squeeze=False, height_ratios=axes_of
    )
    for axes, scores in zip(panels[:, 0], results.judges, strict=True):
        rows = list(reversed(scores.comparisons))
        axes.axvline(0, color=theme.quiet, linewidth=1.2, linestyle="--")
        for place, row in enumerate(rows):
            last = place == len(rows) - 1
            point(axes, row.difference, row.interval, place + 0.14, theme.model, "as written" if last else None, row.real)
            if row.length_control is not None:
                control, label = row.length_control, "at equal length" if last else None
                point(axes, control.difference, control.interval, place - 0.14, theme.baseline, label, control.real)
        axes.set_yticks(range(len(rows)), [row.axis for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_title(f"{scores.judge.name}: {results.continued.name} minus {results.base.name}")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    title = "filled: p below 0.05 after Holm; lines: 95% intervals of one axis"
    figure.legend(handles, labels, loc="outside lower left", ncols=2, title=title, alignment="left")
    return figure


def point(axes: Axes, value: float, spread: Interval, height: float, colour: str, label: str | None, real: bool) -> None:
    """A difference on its interval; hollow where it can be chance."""
    if spread is not None:
        axes.plot(spread, (height, height), color=colour, linewidth=2, alpha=0.45)
    face = colour if real else axes.get_facecolor()
    axes.plot(value, height, "o", color=colour, markerfacecolor=face, markersize=6, linestyle="none", label=label)


def points_csv(results: RewardResults) -> str:
    """The plot's data: a line an axis and judge."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("difference", "low", "high", "p_holm", "equal_length", "equal_length_low", "equal_length_high")
    writer.writerow(("judge", "axis", "base", "continued", *names))
    for scores in results.judges:
        for row in scores.comparisons:
            low, high = row.interval or (None, None)
            control = row.length_control
            equal = (None, None, None) if control is None else (control.difference, *(control.interval or (None, None)))
            writer.writerow(
                (
                    scores.judge.name,
                    row.axis,
                    row.base,
                    row.continued,
                    row.difference,
                    low,
                    high,
                    row.p_permutation_holm,
                    *equal,
                )
            )
    return text.getvalue()
