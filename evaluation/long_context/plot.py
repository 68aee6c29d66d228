"""The pictures: where needles are found, where a vector looks, how well masks are filled; each with its data as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from evaluation.drawing import LIGHT, Theme, new_figure, png, styled
from evaluation.long_context.results import LongContextResults, ModelCurves
from mecellem.page.figure_data import figure_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Drawing = Callable[[Sequence[ModelCurves], list[int], Theme], Figure]

COLUMNS = 2  # panels beside one another


def drawings(results: LongContextResults) -> dict[str, Callable[[Theme], Figure]]:
    """Name of a picture (needle, places, masks) -> how it is drawn; only those with data."""
    makes: dict[str, tuple[Drawing, list[ModelCurves]]] = {
        "needle": (needle_figure, [model for model in results.models if model.needle]),
        "places": (position_figure, [model for model in results.models if model.positions]),
        "masks": (masking_figure, [model for model in results.models if model.masking]),
    }
    lengths = [int(length) for length in results.settings["lengths"]]
    return {name: partial(make, models, lengths) for name, (make, models) in makes.items() if models}


def draw_all(results: LongContextResults) -> dict[str, tuple[bytes, str]]:
    """Name of a picture -> PNG for light pages, and its data as CSV."""
    found = {}
    with styled(LIGHT):
        for name, draw in drawings(results).items():
            figure = draw(LIGHT)
            found[name] = png(figure), figure_csv(figure)
    return found


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, `height` inches each; an odd one leaves a blank."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure, axes = new_figure(4.6 * columns, height * rows, rows, columns, gap=0.08, squeeze=False)
    places = list(axes.flat)
    for unused in places[count:]:
        unused.set_visible(False)
    return figure, places[:count]


def needle_figure(models: Sequence[ModelCurves], lengths: list[int], theme: Theme) -> Figure:
    """A heat map a model: lengths from left to right, depths from top to bottom; hatched: not measured."""
    from matplotlib.colors import LinearSegmentedColormap

    figure, places = panels(len(models), 3.2)
    shades = LinearSegmentedColormap.from_list("found", [theme.page, theme.model])
    depths = sorted({cell.depth for model in models for cell in model.needle})
    for axes, model in zip(places, models, strict=True):
        table = np.full((len(depths), len(lengths)), np.nan)
        for cell in model.needle:
            table[depths.index(cell.depth), lengths.index(cell.length)] = 100 * cell.accuracy.value
        axes.set_facecolor(theme.grid)
        axes.patch.set(hatch="///", edgecolor=theme.quiet)
        axes.imshow(table, cmap=shades, vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            if not np.isnan(value):
                colour = theme.page if value > 55 else theme.text
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=9)
        axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
        axes.set_yticks(range(len(depths)), [f"{depth:g}%" for depth in depths])
        axes.grid(visible=False)
        axes.set_xlabel("tokens of the document")
        axes.set_ylabel("text before the needle")
        axes.set_title(f"{model.name}: needle found (%, chance {100 / model.needle[0].candidates:.0f})")
    return figure


def colours(theme: Theme) -> list[str]:
    """One a length; the sixth begins again."""
    return [theme.model, theme.baseline, theme.mark, "#2a8a5c", "#b03060"]


def position_figure(models: Sequence[ModelCurves], lengths: list[int], theme: Theme) -> Figure:
    """A panel a model, a curve a length: cosine to the piece at a place minus the document's mean, with intervals."""
    figure, places = panels(len(models), 3.0)
    for axes, model in zip(places, models, strict=True):
        for curve in model.positions:
            count = len(curve.relative)
            where = (np.arange(count) + 0.5) / count * 100
            values = [rate.value for rate in curve.relative]
            colour = colours(theme)[lengths.index(curve.length) % len(colours(theme))]
            spread = None
            if all(rate.interval for rate in curve.relative):
                ends = np.array([rate.interval for rate in curve.relative], dtype=np.float64)
                spread = np.maximum(0, [values - ends[:, 0], ends[:, 1] - values])
            label = f"{curve.length:,} tokens"
            axes.errorbar(where, values, yerr=spread, color=colour, linewidth=1.8, elinewidth=0.8, label=label)
        axes.axhline(0, color=theme.quiet, linewidth=1)
        axes.set_xlabel("place of the piece (% of the document)")
        axes.set_ylabel("cosine minus the mean")
        axes.set_title(f"{model.name}: where the vector looks")
        axes.legend()
    return figure


def masking_figure(models: Sequence[ModelCurves], lengths: list[int], theme: Theme) -> Figure:
    """Two panels a model: loss by place, and its difference from the same tokens in the shortest windows."""
    from matplotlib.ticker import FuncFormatter

    figure, places = panels(2 * len(models), 3.0)
    for number, model in enumerate(models):
        titles = (f"{model.name}: loss by place (nats)", f"{model.name}: loss minus that in the shortest windows")
        for axes, title in zip(places[2 * number : 2 * number + 2], titles, strict=True):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.set_xlabel("place of the token")
            axes.set_title(title)
        for curve in model.masking:
            colour = colours(theme)[lengths.index(curve.length) % len(colours(theme))]
            where = [(bucket.start + bucket.end) / 2 for bucket in curve.buckets]
            label = f"{curve.length:,} tokens"
            left, right = places[2 * number : 2 * number + 2]
            left.plot(where, [bucket.nll.value for bucket in curve.buckets], "o-", color=colour, markersize=4, label=label)
            gains = [bucket.against_short.value for bucket in curve.buckets if bucket.against_short]
            if gains:
                right.plot(where, gains, "o-", color=colour, markersize=4, label=label)
        places[2 * number].legend()
        places[2 * number + 1].axhline(0, color=theme.quiet, linewidth=1)
    return figure
