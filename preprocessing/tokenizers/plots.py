"""Figures of tokenizers, on white paper: the comparison's as files, the report's as SVG that stands in the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.page.svg import figure_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKS = ("#1f6feb", "#c4570c", "#1a7f4b", "#7a3fc4", "#b08800", "#5d6773", "#0e7490", "#be185d")
_TEXT, _LINE = "#1c2127", "#e1e5ea"


def _axes(figure: Figure, place: int, columns: int, title: str) -> Axes:
    ax = figure.add_subplot(1, columns, place)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(_LINE)
    ax.tick_params(colors=_TEXT, labelsize=9, length=0)
    ax.grid(True, axis="x", color=_LINE, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.set_title(title, loc="left", fontsize=10.5, color=_TEXT, pad=8)
    return ax


def compared(tokenizers: Sequence[dict[str, Any]]) -> Figure:
    """Tokens a word by domain, shares of Turkish and pure unique tokens, and suffixes that stay whole."""
    from matplotlib.figure import Figure

    domains = list(tokenizers[0]["domains"])
    rows = [("all", "all"), *((name, name) for name in domains)] if len(domains) > 1 else [("all", "all texts")]
    count = len(tokenizers)
    bars = max(len(rows), 3) * count
    figure = Figure(figsize=(10, 1.6 + 0.17 * bars + 0.22 * count), layout="constrained")
    left = _axes(figure, 1, 2, "tokens a word")
    right = _axes(figure, 2, 2, "shares, all texts")
    shares = {
        "turkish_share_of_unique": "unique tokens:\nTurkish",
        "pure_share_of_unique": "unique tokens:\npure",
        "apostrophe_whole": "suffix behind\napostrophe whole",
    }
    height = 0.8 / count
    for number, figures in enumerate(tokenizers):
        colour = _MARKS[number % len(_MARKS)]
        shift = (number - (count - 1) / 2) * height
        by_row = [figures["all"] if key == "all" else figures["domains"][key] for key, _ in rows]
        values = [row["tokens_per_word"] or 0 for row in by_row]
        _bars(left, values, shift, height, colour, "{:.2f}", figures["name"])
        _bars(right, [figures["all"][key] or 0 for key in shares], shift, height, colour, "{:.0%}", figures["name"])
    left.set_yticks(range(len(rows)), [label for _, label in rows])
    right.set_yticks(range(len(shares)), list(shares.values()))
    right.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for ax in (left, right):
        ax.invert_yaxis()
        ax.margins(x=0.12)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(count, 4), frameon=False, fontsize=9)
    return figure


def _bars(ax: Axes, values: Sequence[float], shift: float, height: float, colour: str, form: str, label: str) -> None:
    places = [row + shift for row in range(len(values))]
    ax.barh(places, values, height=height * 0.92, color=colour, label=label)
    for place, value in zip(places, values, strict=True):
        ax.text(value, place, " " + form.format(value), va="center", fontsize=7.5, color=_TEXT)


def lengths(counts: dict[int, int], used: dict[int, int]) -> Figure:
    """Entries by their length in characters, and those of them that the text uses."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 2.8), layout="constrained")
    ax = _axes(figure, 1, 1, "entries by length in characters")
    ax.bar(list(counts), list(counts.values()), color=_LINE, width=0.85, label="in the vocabulary")
    ax.bar(list(used), list(used.values()), color=_MARKS[0], width=0.85, label="used by the texts")
    ax.grid(True, axis="y", color=_LINE, linewidth=0.7)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.legend(frameon=False, fontsize=9, labelcolor=_TEXT)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `path`.svg and `path`.png."""
    path.with_name(f"{path.name}.svg").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n' + figure_svg(figure), encoding="utf-8"
    )
    figure.savefig(path.with_name(f"{path.name}.png"), dpi=130, metadata={"Software": None})
