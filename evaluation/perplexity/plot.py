"""The picture: perplexity and bits per byte of every model in every sub-domain, with 95% intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.drawing import LIGHT, Theme, new_figure, png, styled
from evaluation.perplexity.results import Interval, PerplexityResults
from evaluation.perplexity.tables import rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def colours(theme: Theme) -> tuple[str, ...]:
    """One a model; the seventh begins again."""
    return (theme.baseline, theme.model, theme.mark, "#2a8a5c", "#b03060", theme.quiet)


def draw(results: PerplexityResults) -> bytes:
    """The figure as PNG, for light pages."""
    with styled(LIGHT):
        return png(perplexity_figure(results, LIGHT))


def perplexity_figure(results: PerplexityResults, theme: Theme) -> Figure:
    """A row a sub-domain, a dot a model. Perplexities only where all models cut the texts into the same tokens."""
    comparable = all(model.change is None or model.change.perplexity is not None for model in results.models)
    titles = (["Perplexity"] if comparable else []) + ["Bits per byte"]
    domains = [domain for domain, _, _ in rows(results.models[0])]
    height = 1.1 + 0.25 * len(domains) * (1 + len(results.models) / 2) + 0.22 * len(results.models)
    figure, panels = new_figure(8.6, height, 1, len(titles), gap=0.08, sharey=True, squeeze=False)
    for axes, title in zip(panels[0], titles, strict=True):
        draw_panel(axes, results, domains, title, colours(theme))
    handles, labels = panels[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=min(3, len(labels)))
    return figure


def draw_panel(axes: Axes, results: PerplexityResults, domains: list[str], title: str, marks: tuple[str, ...]) -> None:
    """One measure: sub-domains from top to bottom, models a little apart in each."""
    count = len(results.models)
    for number, model in enumerate(results.models):
        colour = marks[number % len(marks)]
        for place, (_, score, _) in enumerate(rows(model)):
            value, spread = score.bits_per_byte, score.bits_per_byte_interval
            if title == "Perplexity":
                value, spread = score.perplexity, score.perplexity_interval
            height = len(domains) - 1 - place + (0.5 - (number + 0.5) / count) * 0.6
            draw_point(axes, value, spread, height, colour, model.name if place == 0 else None)
    axes.set_yticks(range(len(domains)), list(reversed(domains)))
    axes.set_ylim(-0.6, len(domains) - 0.4)
    axes.set_xlim(0, None)
    axes.set_title(title)
    axes.grid(axis="y", visible=False)


def draw_point(axes: Axes, value: float, spread: Interval, height: float, colour: str, label: str | None) -> None:
    """A value as a dot on its interval."""
    if spread is not None:
        axes.plot(spread, (height, height), color=colour, linewidth=2, alpha=0.45)
    axes.plot(value, height, "o", color=colour, markersize=6, label=label)
