"""The report's figures, each drawn twice: for light and for dark pages. matplotlib without pyplot needs no screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from evaluation.bootstrap import mean_interval
from evaluation.drawing import THEMES, Theme, new_figure, png, smooth, styled, token_axis
from evaluation.perplexity import plot
from evaluation.report.gather import ReportData, Rows
from evaluation.selection.results import SYSTEMS, Metric
from evaluation.selection.tables import ndcg
from mecellem.page.figure_data import figure_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTERS = 110  # of a label that a figure's width has room for


def column(rows: Rows, name: str) -> np.ndarray:
    """One field of all lines that have it, as floats."""
    return np.array([row[name] for row in rows], dtype=np.float64)


def draw_curve(axes: Axes, rows: Rows, name: str, colour: str) -> None:
    """Every step thin, a moving average over 3% of the steps strong."""
    rows = [row for row in rows if name in row]
    x, y = column(rows, "tokens"), column(rows, name)
    axes.plot(x, y, color=colour, alpha=0.28, linewidth=0.8)
    axes.plot(x, smooth(y, max(1, len(y) // 33)), color=colour, linewidth=2)


def loss_figure(data: ReportData, theme: Theme) -> Figure:
    """Training and validation loss over tokens, with the lowest validation loss and the kept checkpoint marked."""
    figure, axes = new_figure(8.6, 3.9)
    draw_curve(axes, data.training, "loss", theme.model)
    axes.plot([], [], color=theme.model, linewidth=2, label="training")
    if data.validation:
        axes.plot(
            column(data.validation, "tokens"),
            column(data.validation, "validation_loss"),
            color=theme.baseline,
            linewidth=2,
            marker="o",
            markersize=4,
            label="validation",
        )
    if data.selection:
        mark_step(axes, data.tokens_at(data.selection.best_step), "kept", theme)
    if data.curriculum:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.1 * (high - low))  # the stages' names stand above the curves
        mark_stages(axes, data, theme)
    axes.set_title(f"{'Causal' if data.causal else 'Masked'}-language-model loss (nats per {data.counted})")
    token_axis(axes)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    return figure


def mark_step(axes: Axes, tokens: float, text: str, theme: Theme, height: float = 0.97) -> None:
    """A dotted vertical line with a label at its side."""
    axes.axvline(tokens, color=theme.mark, linewidth=1.3, linestyle=(0, (2, 2)))
    right = tokens > np.mean(axes.get_xlim())
    axes.annotate(
        text,
        (tokens, height),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if right else 5, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        color=theme.mark,
        fontsize=9,
    )


def mark_stages(axes: Axes, data: ReportData, theme: Theme, letters: int = LETTERS) -> None:
    """Dotted lines where a curriculum's stages begin; each stage's number and name, or only what `letters` have room for."""
    from matplotlib.patheffects import withStroke

    done, begin = int(data.training[-1]["tokens"]), 0
    for number, stage in enumerate(data.curriculum.stages if data.curriculum else (), start=1):
        if begin >= done:
            break
        if begin:
            axes.axvline(begin, color=theme.quiet, linewidth=1, linestyle=(0, (1, 2)))
        end = min(begin + stage.trained_tokens, done)
        room = letters * (end - begin) / done
        label = next((text for text in (f"{number} {stage.name}", str(number)) if len(text) <= room), "")
        axes.annotate(
            label, ((begin + end) / 2, 0.99), xycoords=("data", "axes fraction"), ha="center", va="top", color=theme.quiet,
            fontsize=9, path_effects=[withStroke(linewidth=3, foreground=theme.page)],
        )  # fmt: skip
        begin += stage.trained_tokens


def dynamics_figure(data: ReportData, theme: Theme) -> Figure:
    """Learning rate, throughput (but of emulated FP8) and gradient norm over tokens, side by side."""
    from matplotlib.ticker import EngFormatter, FuncFormatter

    shown = {"lr": "Learning rate", "tokens_per_second": "Tokens per second", "grad_norm": "Gradient norm"}
    if data.emulated_fp8:
        del shown["tokens_per_second"]
    figure, panels = new_figure(8.6, 2.6, 1, len(shown))
    for axes, (name, title) in zip(panels, shown.items(), strict=True):
        rows = [row for row in data.training if name in row]
        if name == "lr":
            axes.plot(column(rows, "tokens"), column(rows, name), color=theme.model, linewidth=2)
        elif rows:
            draw_curve(axes, rows, name, theme.model)
        if name != "lr" and rows:
            # A slow first step or one spike would flatten all the rest.
            axes.set_ylim(0, 1.25 * float(np.quantile(column(rows, name), 0.99)))
        if name == "tokens_per_second":
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        elif name == "lr":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_title(title)
        mark_stages(axes, data, theme, letters=0)
        token_axis(axes)
    return figure


def checkpoint_figure(data: ReportData, theme: Theme) -> Figure:
    """Per checkpoint, on one token axis: losses, masks filled and, where measured, retrieval; its peak and the lowest loss."""
    selection = data.selection
    assert selection is not None, "drawn for evaluated runs only"
    peak = selection.peak_step
    heights = (1, 0.8) if peak is None else (1, 0.8, 1.5)
    figure, panels = new_figure(8.6, 2.2 * sum(heights), len(heights), 1, gap=0.1, sharex=True, height_ratios=heights)
    tokens = [data.tokens_at(row.step) for row in data.checkpoints]
    marks = {} if peak is None else {float(data.tokens_at(peak)): "retrieval peaks"}
    lowest = float(data.tokens_at(selection.loss_step))
    marks[lowest] = "loss lowest, retrieval peaks" if lowest in marks else "loss lowest"
    if data.validation:
        x, y = column(data.validation, "tokens"), column(data.validation, "validation_loss")
        panels[0].plot(x, y, color=theme.baseline, linewidth=2, label="in training")
    losses = [row.fill_mask.all.nll for row in data.checkpoints]
    panels[0].plot(tokens, losses, color=theme.model, marker="o", linewidth=2, label="checkpoints, fill-mask")
    panels[0].set_title("Validation loss (nats per masked token)")
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    draw_fill_mask(panels[1], data, tokens, theme)
    if peak is not None:
        draw_retrieval(panels[2], data, tokens, theme)
    token_axis(panels[-1])
    for axes in panels:
        for place, text in marks.items():
            mark_step(axes, place, text if axes is panels[0] else "", theme)
    return figure


def draw_fill_mask(axes: Axes, data: ReportData, tokens: list[int], theme: Theme) -> None:
    """Share of [MASK]s filled with the exact token at each checkpoint, beside the unigram baseline."""
    from matplotlib.ticker import PercentFormatter

    assert data.selection is not None
    shares = [row.fill_mask.all.top1_mask_only for row in data.checkpoints]
    axes.plot(tokens, [np.nan if share is None else share for share in shares], color=theme.model, marker="o", linewidth=2)
    unigram = data.selection.unigram.all.top1_mask_only
    if unigram is not None:
        draw_level(axes, unigram, "unigram", theme)
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title("[MASK]s filled with the exact token")


def draw_level(axes: Axes, level: float, text: str, theme: Theme, line: str = "-") -> None:
    """A baseline: a horizontal line with its name on it, in the middle, where no curve begins or ends."""
    from matplotlib.patheffects import withStroke

    axes.axhline(level, color=theme.baseline, linewidth=1.2, linestyle=line)
    axes.annotate(
        text, (0.5, level), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points", ha="center",
        va="bottom", color=theme.baseline, fontsize=9, path_effects=[withStroke(linewidth=3, foreground=theme.page)],
    )  # fmt: skip


def draw_retrieval(axes: Axes, data: ReportData, tokens: list[int], theme: Theme) -> None:
    """Mean nDCG@10 of each checkpoint with its 95% interval, mean-pooled and post-trained, and the baselines' levels."""
    assert data.selection is not None
    own: tuple[tuple[Metric, str, str, str], ...] = (
        ("post_trained", theme.model, "-", "o"),
        ("mean_pooled", theme.quiet, "--", "s"),
    )
    for metric, colour, line, marker in own:
        scores = [found for row in data.checkpoints if (found := row.scores(metric)) is not None]
        if not scores:
            continue
        means = np.array([score.mean for score in scores])
        spread = np.abs(np.array([mean_interval(score.samples()) for score in scores]).T - means)
        axes.errorbar(
            tokens, means, spread, color=colour, linestyle=line, marker=marker, linewidth=2, elinewidth=1, capsize=3,
            label=SYSTEMS[f"model_{metric}"],
        )  # fmt: skip
    baselines = data.selection.baselines
    for system in ("bm25", f"random_{data.selection.metric}"):
        draw_level(axes, baselines[system].mean, SYSTEMS[system], theme, "-" if system == "bm25" else ":")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.set_title("Retrieval, mean nDCG@10 over tasks")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)


def systems_figure(data: ReportData, theme: Theme) -> Figure:
    """nDCG@10 of every system on every task of the test split with its 95% interval, for the kept checkpoint."""
    assert data.selection is not None, "drawn for evaluated runs only"
    test = data.selection.test
    figure, panels = new_figure(8.6, 2.8, 1, len(test.tasks), sharey=True, sharex=True, squeeze=False)
    order = [name for name in reversed(SYSTEMS) if name in test.systems]
    for axes, task in zip(panels[0], test.tasks, strict=True):
        for height, system in enumerate(order):
            value, interval = ndcg(test.systems[system], task.name), test.systems[system].tasks[task.name].interval
            colour = theme.model if system.startswith("model") else theme.baseline
            if interval is not None:
                axes.plot(interval, (height, height), color=colour, linewidth=2, alpha=0.45)
            axes.plot(value, height, "o", color=colour, markersize=7)
        axes.set_yticks(range(len(order)), [SYSTEMS[system] for system in order])
        axes.set_title(task.description.replace(": ", ":\n"), fontsize=10)
        axes.set_xlabel("nDCG@10")
        axes.grid(axis="x", visible=False)
    panels[0][0].set_xlim(0, None)
    panels[0][0].set_ylim(-0.6, len(order) - 0.4)
    return figure


def curriculum_figure(data: ReportData, theme: Theme) -> Figure:
    """The curriculum over tokens: mixture, learning rate and sequence length."""
    from megatron_recipes import curriculum_plot

    assert data.curriculum is not None, "drawn for decoders only"
    return curriculum_plot.curriculum_figure(data.curriculum, theme.model, theme.baseline)


def perplexity_figure(data: ReportData, theme: Theme) -> Figure:
    """Perplexity and bits per byte of every model in every sub-domain."""
    assert data.perplexity is not None, "drawn where it was measured only"
    return plot.perplexity_figure(data.perplexity, theme)


Drawing = Callable[[ReportData, Theme], "Figure"]
ALWAYS: dict[str, Drawing] = {"loss": loss_figure, "dynamics": dynamics_figure}
EVALUATED: dict[str, Drawing] = {"checkpoints": checkpoint_figure}
RETRIEVAL: dict[str, Drawing] = {"systems": systems_figure}
CURRICULUM: dict[str, Drawing] = {"curriculum": curriculum_figure}
PERPLEXITY: dict[str, Drawing] = {"perplexity": perplexity_figure}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure: PNG bytes by the name of the theme, and what it shows as CSV."""

    images: dict[str, bytes]
    csv: str


def draw_all(data: ReportData) -> dict[str, Drawn]:
    """Every figure that the run has the data for, by name."""
    drawings = (
        ALWAYS | (EVALUATED if data.selection else {}) | (RETRIEVAL if data.selection and data.selection.test.systems else {})
    )
    drawings |= (CURRICULUM if data.curriculum else {}) | (PERPLEXITY if data.perplexity else {})
    return {name: draw_themes(partial(draw, data)) for name, draw in drawings.items()}


def draw_themes(draw: Callable[[Theme], Figure]) -> Drawn:
    """One figure in every theme, and its data."""
    images, csv = {}, ""
    for theme in THEMES:
        with styled(theme):
            figure = draw(theme)
            images[theme.name] = png(figure)
            csv = figure_csv(figure)
    return Drawn(images, csv)
