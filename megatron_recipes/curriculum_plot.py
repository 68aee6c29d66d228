"""A curriculum over tokens: the mixture as stacked areas, and below it learning rate and sequence length."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mecellem.files import atomic_write
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.data.curriculum_stage import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision tell apart; the 9th source on begins again, lighter
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")
RATE, LENGTH = COLOURS[0], COLOURS[5]
TEXT, QUIET, GRID = "#1c2127", "#66707c", "#e4e7eb"
MOST_NAMES = 16  # in the legend
POINTS = 1000  # of the learning rate's curve per stage, at most
SETTINGS: Any = {
    "text.color": TEXT,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": GRID,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "grid.color": GRID,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9.5,
    "legend.frameon": False,
    "svg.hashsalt": "mecellem",  # or ids in the SVG would differ from run to run
    "hatch.linewidth": 0.6,
}


def draw(curriculum: Curriculum, path: Path) -> None:
    """Write the figure to `path`, a PNG or SVG file by its suffix. The same curriculum gives the same file."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS):
        kind = path.suffix.removeprefix(".")
        metadata = {"Software": None} if kind == "png" else {"Date": None}
        with atomic_write(path, "wb") as handle:
            curriculum_figure(curriculum).savefig(handle, format=kind, dpi=160, metadata=metadata)


def curriculum_figure(curriculum: Curriculum, rate_colour: str = RATE, length_colour: str = LENGTH) -> Figure:
    """The figure in the colours of text, grid and page that matplotlib is set to."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 5.6), layout="constrained")
    mixture, rate = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    edges = np.concatenate([[0], np.cumsum([stage.trained_tokens for stage in curriculum.stages])])
    draw_mixture(mixture, curriculum, edges)
    draw_rate(rate, curriculum, edges, rate_colour)
    draw_lengths(rate.twinx(), curriculum, edges, length_colour)
    return figure


def draw_mixture(axes: Axes, curriculum: Curriculum, edges: np.ndarray) -> None:
    """Each source's share of each stage; replayed sources are hatched."""
    from matplotlib import rcParams
    from matplotlib.ticker import PercentFormatter

    names: dict[str, bool] = {}
    for stage in curriculum.stages:
        names |= {source.name: source.replay for source in stage.sources}
    names = dict(sorted(names.items(), key=lambda item: item[1]))  # replay on top
    shares = np.zeros((len(names), len(curriculum.stages)))
    for column, stage in enumerate(curriculum.stages):
        for source, weight in zip(stage.sources, stage.weights, strict=True):
            shares[list(names).index(source.name), column] = weight
    corners, heights = np.repeat(edges, 2)[1:-1], np.repeat(shares, 2, axis=1)
    base = np.zeros(len(corners))
    for number, (name, replay) in enumerate(names.items()):
        axes.fill_between(
            corners,
            base,
            base + heights[number],
            facecolor=COLOURS[number % len(COLOURS)],
            alpha=0.85 if number < len(COLOURS) else 0.45,
            edgecolor=rcParams["figure.facecolor"],
            linewidth=0.8,
            hatch="///" if replay else None,
            label=(name + (" (replay)" if replay else "")) if number < MOST_NAMES else None,
        )
        base = base + heights[number]
    axes.grid(visible=False)
    axes.set_ylim(0, 1)
    axes.set_xlim(0, edges[-1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("share of tokens")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))
    name_stages(axes, curriculum, edges)


def name_stages(axes: Axes, curriculum: Curriculum, edges: np.ndarray) -> None:
    """Each stage's name above its part; slanted, so that short stages' names do not meet."""
    from matplotlib import rcParams

    top = axes.secondary_xaxis("top")
    middles = (edges[:-1] + edges[1:]) / 2
    top.set_xticks(middles.tolist(), [stage.name for stage in curriculum.stages], rotation=25, ha="left")
    top.tick_params(labelcolor=rcParams["text.color"])
    top.tick_params(length=0)
    top.spines["top"].set_visible(False)
    for edge in edges[1:-1]:
        axes.axvline(edge, color=rcParams["figure.facecolor"], linewidth=2)


def draw_rate(axes: Axes, curriculum: Curriculum, edges: np.ndarray, colour: str) -> None:
    """Learning rate as an area."""
    from matplotlib.ticker import FuncFormatter

    for begin, stage in zip(edges, curriculum.stages, strict=False):
        steps = np.unique(np.linspace(1, stage.steps, min(stage.steps, POINTS)).astype(np.int64))
        tokens = np.concatenate([[0], steps * stage.global_batch_tokens])  # a rate holds from the step's first token on
        rates = [stage.lr.at(int(seen), stage.trained_tokens) for seen in tokens[1:]]
        axes.fill_between(begin + tokens, [rates[0], *rates], color=colour, alpha=0.25, step="pre", linewidth=0)
        axes.step(begin + tokens, [rates[0], *rates], color=colour, linewidth=1.6)
    axes.set_ylim(0, None)
    axes.set_ylabel("learning rate", color=colour)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(round(value))))
    axes.set_xlabel("tokens seen")
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)


def draw_lengths(axes: Axes, curriculum: Curriculum, edges: np.ndarray, colour: str) -> None:
    """Sequence length as steps, on an axis of its own at the right."""
    from matplotlib.ticker import NullLocator

    values = [stage.seq_len for stage in curriculum.stages]
    axes.stairs(values, edges, baseline=None, color=colour, linewidth=1.8)
    axes.set_yscale("log", base=2)
    axes.set_yticks(sorted(set(values)), [f"{value:,}" for value in sorted(set(values))])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(min(values) / 1.5, max(values) * 1.5)
    axes.set_ylabel("sequence length", color=colour)
    axes.tick_params(length=0)
    axes.grid(visible=False)
