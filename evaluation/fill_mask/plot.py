"""The picture: accuracy on masked words and bits per byte of every model in every domain, and its data as CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.drawing import LIGHT, Theme, new_figure, png, styled
from evaluation.fill_mask.results import FillMaskResults, Rate, Scores
from evaluation.fill_mask.tables import domain_rows, predictors
from mecellem.page.figure_data import figure_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def words_right(scores: Scores) -> Rate | None:
    """Accuracy on masked words."""
    return None if scores.words is None else scores.words.top1


def bits_per_byte(scores: Scores) -> Rate | None:
    """Pseudo-likelihood."""
    return None if scores.pseudo is None else scores.pseudo.bits_per_byte


PANELS = {"Masked words right (share)": words_right, "Bits per byte (pseudo-likelihood)": bits_per_byte}


def draw(results: FillMaskResults) -> tuple[bytes, str]:
    """The figure as PNG for light pages, and its data as CSV."""
    with styled(LIGHT):
        figure = fill_mask_figure(results, LIGHT)
        return png(figure), figure_csv(figure)


def fill_mask_figure(results: FillMaskResults, theme: Theme) -> Figure:
    """A panel a measure that compares between tokenizers, a row a domain, a dot a predictor on its interval."""
    found = predictors(results.models)
    domains = [domain for domain, _ in domain_rows(found[0][1])]
    height = 1.2 + 0.25 * len(domains) * (1 + len(found) / 2) + 0.22 * len(found)
    figure, panels = new_figure(8.6, height, 1, len(PANELS), gap=0.08)
    colours = (theme.quiet, theme.model, theme.baseline, theme.mark, "#2a8a5c", "#b03060")
    for axes, (title, pick) in zip(panels, PANELS.items(), strict=True):
        for number, (name, predictor) in enumerate(found):
            offset = (0.5 - (number + 0.5) / len(found)) * 0.6
            marks = [
                (len(domains) - 1 - place + offset, pick(scores)) for place, (_, scores) in enumerate(domain_rows(predictor))
            ]
            _dots(axes, [(height, rate) for height, rate in marks if rate], colours[number % len(colours)], name)
        axes.set_yticks(range(len(domains)), list(reversed(domains)))
        axes.set_ylim(-0.6, len(domains) - 0.4)
        axes.set_xlim(0, None)
        axes.set_title(title)
        axes.grid(axis="y", visible=False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=min(3, len(labels)))
    return figure


def _dots(axes: Axes, marks: list[tuple[float, Rate]], colour: str, label: str) -> None:
    """A dot on its interval at each height; without any the name still is in the legend."""
    heights, values = [height for height, _ in marks], [rate.value for _, rate in marks]
    ends = [rate.interval or (rate.value, rate.value) for _, rate in marks]
    spread = [[max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
              [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]]  # fmt: skip
    axes.errorbar(values, heights, xerr=spread, fmt="o", color=colour, markersize=6, elinewidth=2, label=label, clip_on=False)
