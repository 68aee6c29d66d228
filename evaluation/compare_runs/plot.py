"""The picture of a comparison: both losses, their gap with its limits, both gradient norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evaluation.compare_runs.criteria import Limits, Pair
from evaluation.drawing import LIGHT, new_figure, png, smooth, styled, token_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("A", "B")


def draw(runs: Pair, names: tuple[str, str], limits: Limits, warmup_tokens: int, smoothed_over: int) -> bytes:
    """PNG of three panels over tokens; what is before `warmup_tokens` has a grey ground. `names` label A and B."""
    with styled(LIGHT):
        figure, panels = new_figure(8.6, 8.0, 3, 1, gap=0.08, sharex=True, height_ratios=(1.2, 1.2, 1))
        two_curves(panels[0], runs.tokens, runs.loss, names, smoothed_over)
        panels[0].set_title("Training loss (nats per token)")
        panels[0].legend(loc="upper right")
        draw_gap(panels[1], runs, limits, smoothed_over)
        two_curves(panels[2], runs.tokens, runs.grad_norm, names, smoothed_over)
        panels[2].set_title("Gradient norm")
        log_scale(panels[2])
        for axes in panels:
            axes.axvspan(0, warmup_tokens, color=LIGHT.grid, alpha=0.6, linewidth=0)
        token_axis(panels[-1])
        return png(figure)


def log_scale(axes: Axes) -> None:
    """A logarithmic vertical axis with plain numbers on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def two_curves(axes: Axes, tokens: np.ndarray, values: np.ndarray, names: tuple[str, str], width: int) -> None:
    """Both runs' values, each step thin and their moving average strong."""
    for letter, name, row, colour in zip(NAMES, names, values, (LIGHT.baseline, LIGHT.model), strict=True):
        axes.plot(tokens, row, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(tokens, smooth(row, width), color=colour, linewidth=1.8, label=f"{letter}: {name}")


def draw_gap(axes: Axes, runs: Pair, limits: Limits, width: int) -> None:
    """B - A, its moving average, and the band that passes."""
    axes.plot(runs.tokens, runs.gap, color=LIGHT.mark, alpha=0.25, linewidth=0.8)
    axes.plot(runs.tokens, smooth(runs.gap, width), color=LIGHT.mark, linewidth=1.8)
    for limit in (-limits.max_gap, limits.max_gap):
        axes.axhline(limit, color=LIGHT.quiet, linewidth=1.2, linestyle="--")
    gaps = runs.gap[runs.after_warmup]
    gaps = gaps[np.isfinite(gaps)]
    reach = 1.3 * max(limits.max_gap, float(np.quantile(np.abs(gaps), 0.99)) if gaps.size else 0.0)
    axes.set_ylim(-reach, reach)  # before warm-up ends a gap can be far larger
    axes.set_title(f"B - A, averaged over {width} steps; between the dashed lines passes")
