"""A curriculum over tokens: the mixture as stacked areas, and below it learning rate and sequence length."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mecellem.files import atomic_write
from megatron_recipes.data.curriculum import Curriculum, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which people with any colour vision tell apart; the 9th source on begins again, lighter
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")
TEXT, QUIET, GRID = "#1c2127", "#66707c", "#e4e7eb"
MOST_NAMES = 16  # in the legend
POINTS = 1000  # of the learning rate's curve per stage, at most
SETTINGS: Any = {
    "text.color": TEXT,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": GRID,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
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
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(9.2, 5.6), layout="constrained", facecolor="white")
        mixture, rate = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        edges = np.concatenate([[0], np.cumsum([stage.trained_tokens for stage in curriculum.stages])])
        draw_mixture(mixture, curriculum, edges)
        draw_rate(rate, curriculum, edges)
        kind = path.suffix.removeprefix(".")
        metadata = {"Software": None} if kind == "png" else {"Date": None}
        with atomic_write(path, "wb") as handle:
            figure.savefig(handle, format=kind, dpi=160, metadata=metadata)


def draw_mixture(axes: Axes, curriculum: Curriculum, edges: np.ndarray) -> None:
    """Each source's share of each stage; replayed sources are hatched."""
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
            edgecolor="white",
            linewidth=0.8,
            hatch="///" if replay else None,
            label=(name + (" (replay)" if replay else "")) if number < MOST_NAMES else None,
        )
        base = base + heights[number]
    axes.set_ylim(0, 1)
    axes.set_xlim(0, edges[-1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("share of tokens")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))
    name_stages(axes, curriculum, edges)


def name_stages(axes: Axes, curriculum: Curriculum, edges: np.ndarray) -> None:
    """Each stage's name above its part; slanted, so that short stages' names do not meet."""
    top = axes.secondary_xaxis("top")
    middles = (edges[:-1] + edges[1:]) / 2
    top.set_xticks(middles.tolist(), [stage.name for stage in curriculum.stages], rotation=25, ha="left", color=TEXT)
    top.tick_params(length=0)
    top.spines["top"].set_visible(False)
    for edge in edges[1:-1]:
        axes.axvline(edge, color="white", linewidth=2)


def draw_rate(axes: Axes, curriculum: Curriculum, edges: np.ndarray) -> None:
    """Learning rate as an area, sequence length as steps on an axis of its own."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    for begin, stage in zip(edges, curriculum.stages, strict=False):
        steps = np.unique(np.linspace(1, stage.steps, min(stage.steps, POINTS)).astype(np.int64))
        tokens = np.concatenate([[0], steps * stage.global_batch_tokens])  # a rate holds from the step's first token on
        rates = [stage.lr.at(int(seen), stage.trained_tokens) for seen in tokens[1:]]
        axes.fill_between(begin + tokens, [rates[0], *rates], color=COLOURS[0], alpha=0.25, step="pre", linewidth=0)
        axes.step(begin + tokens, [rates[0], *rates], color=COLOURS[0], linewidth=1.6)
    axes.set_ylim(0, None)
    axes.set_ylabel("learning rate", color=COLOURS[0])
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(round(value))))
    axes.set_xlabel("tokens seen")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    lengths = axes.twinx()
    values = [stage.seq_len for stage in curriculum.stages]
    lengths.stairs(values, edges, baseline=None, color=COLOURS[5], linewidth=1.8)
    lengths.set_yscale("log", base=2)
    lengths.set_yticks(sorted(set(values)), [f"{value:,}" for value in sorted(set(values))])
    lengths.yaxis.set_minor_locator(NullLocator())
    lengths.set_ylim(min(values) / 1.5, max(values) * 1.5)
    lengths.set_ylabel("sequence length", color=COLOURS[5])
    lengths.tick_params(length=0)
