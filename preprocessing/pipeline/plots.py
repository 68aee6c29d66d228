"""The report's figures as SVG that stands in the page: text stays text, colours are the page's own, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mecellem.page import csv_uri
from mecellem.page.figure_data import figure_csv
from mecellem.page.svg import figure_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What matplotlib draws with -> the page's variable that takes its place; any colours do that occur nowhere else.
_TEXT, _QUIET, _LINE = "#010101", "#020202", "#030303"
_MARKS = ("#040401", "#040402", "#040403", "#040404", "#040405", "#040406")
_VARIABLES = {_TEXT: "--text", _QUIET: "--quiet", _LINE: "--line"} | {
    mark: f"--mark-{i}" for i, mark in enumerate(_MARKS, start=1)
}
_WIDTH = 8.6  # inches
_MOST_SOURCES = len(_MARKS)  # the smallest ones beyond that share a colour

Counts = dict[int, int]


def _figure(height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, number + 1) for number in range(columns)]
    for ax in axes:
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_color(_LINE)
        ax.tick_params(colors=_QUIET, labelsize=9, length=0)
        ax.grid(True, color=_LINE, linewidth=0.7)
        ax.set_axisbelow(True)
    return figure, axes


def _drawn(figure: Figure) -> dict[str, str]:
    """What the page's macro `drawing` takes: the figure as SVG, and its data."""
    svg = figure_svg(figure, transparent=True)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return {"svg": svg, "csv": csv_uri(figure_csv(figure))}


def _label(ax: Axes, x: str = "", y: str = "", title: str = "") -> None:
    ax.set_xlabel(x, color=_QUIET, fontsize=9)
    ax.set_ylabel(y, color=_QUIET, fontsize=9)
    ax.set_title(title, color=_TEXT, fontsize=10.5, loc="left", pad=9)


def _beside(ax: Axes, value: float, row: float, text: str) -> None:
    """Write behind the end of a horizontal bar."""
    place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
    ax.annotate(text, (value, row), fontsize=8.5, color=_TEXT, **place)  # type: ignore[arg-type]


def _legend(figure: Figure, ax: Axes) -> None:
    """Below everything, where it hides nothing."""
    handles, labels = ax.get_legend_handles_labels()
    figure.set_figheight(figure.get_figheight() + 0.3)
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9, labelcolor=_TEXT)


def short(number: float) -> str:
    """`950`, `12.3k`, `4.56M`, `1.2B`."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:g}"


def funnel(stages: Sequence[str], documents: dict[str, list[int]], amounts: dict[str, list[int]], unit: str) -> dict[str, str]:
    """What is left after each stage, stacked by source: documents beside `amounts` in words or tokens, lists of `stages`.

    A source has one colour in both panels, which the one legend tells. Of more sources than colours those with the largest
    amounts at the first stage are shown by name, and all others together.
    """
    figure, axes = _figure(0.9 + 0.34 * len(stages), 2)
    named = _largest(amounts)
    for ax, counts, what in ((axes[0], documents, "documents"), (axes[1], amounts, unit)):
        left = [0] * len(stages)
        for number, (name, values) in enumerate(_grouped(counts, named).items()):
            ax.barh(range(len(stages)), values, left=left, color=_MARKS[number], height=0.66, label=name)
            left = [before + value for before, value in zip(left, values, strict=True)]
        for row, value in enumerate(left):
            _beside(ax, value, row, short(value))
        ax.set_yticks(range(len(stages)), stages)
        ax.tick_params(labelleft=what == "documents")
        ax.invert_yaxis()
        ax.set_xlim(0, max([*left, 1]) * 1.16)
        ax.xaxis.set_major_formatter(lambda value, _: short(value))
        ax.grid(False, axis="y")
        _label(ax, title=f"{what} left")
    if len(documents) > 1:
        _legend(figure, axes[1])
    return _drawn(figure)


def _largest(counts: dict[str, list[int]]) -> list[str]:
    """The sources that have a colour to themselves, in the order of their colours."""
    if len(counts) <= _MOST_SOURCES:
        return list(counts)
    return sorted(counts, key=lambda name: -counts[name][0])[: _MOST_SOURCES - 1]


def _grouped(counts: dict[str, list[int]], named: Sequence[str]) -> dict[str, list[int]]:
    """The counts of the named sources, in that order, then the sum of those that are not."""
    rest = [values for name, values in counts.items() if name not in named]
    # no source can be called so: names have no spaces
    others = {f"{len(rest)} other sources": [sum(column) for column in zip(*rest, strict=True)]} if rest else {}
    return {name: counts[name] for name in named} | others


def lengths(before: Counts, after: Counts) -> dict[str, str]:
    """How long documents are, in powers of two of characters, as they came in and as they stayed."""
    figure, [ax] = _figure(2.6)
    seen = [*before, *after] or [1]
    bits = range(min(seen), max(seen) + 1)
    for shift, counts, mark, name in ((-0.2, before, _MARKS[1], "read"), (0.2, after, _MARKS[0], "kept")):
        ax.bar([bit + shift for bit in bits], [counts.get(bit, 0) for bit in bits], width=0.4, color=mark, label=name)
    ax.set_xticks(list(bits), [short(2 ** (bit - 1)) if bit else "0" for bit in bits])
    ax.yaxis.set_major_formatter(lambda value, _: short(value))
    ax.grid(False, axis="x")
    _label(ax, "characters, at least", "documents")
    _legend(figure, ax)
    return _drawn(figure)


def bars(counts: Sequence[tuple[str, int]], unit: str) -> dict[str, str]:
    """Counts by name, the first on top."""
    figure, [ax] = _figure(0.6 + 0.27 * len(counts))
    ax.barh(range(len(counts)), [count for _, count in counts], color=_MARKS[0], height=0.66)
    for row, (_, count) in enumerate(counts):
        _beside(ax, count, row, f"{count:,}")
    ax.set_yticks(range(len(counts)), [name for name, _ in counts])
    ax.invert_yaxis()
    ax.set_xlim(0, max([count for _, count in counts], default=1) * 1.14)
    ax.xaxis.set_major_formatter(lambda value, _: short(value))
    ax.grid(False, axis="y")
    _label(ax, unit)
    return _drawn(figure)


def two_bars(before: dict[str, int], after: dict[str, int], unit: str) -> dict[str, str]:
    """Counts by name, as they came in and as they stayed; names in the order of `before`."""
    figure, [ax] = _figure(0.9 + 0.4 * len(before))
    for shift, counts, mark, name in ((-0.2, before, _MARKS[1], "read"), (0.2, after, _MARKS[0], "kept")):
        values = [counts.get(key, 0) for key in before]
        ax.barh([row + shift for row in range(len(before))], values, color=mark, height=0.36, label=name)
        for row, value in enumerate(values):
            _beside(ax, value, row + shift, f"{value:,}")
    ax.set_yticks(range(len(before)), list(before))
    ax.invert_yaxis()
    ax.set_xlim(0, max([*before.values(), 1]) * 1.14)
    ax.xaxis.set_major_formatter(lambda value, _: short(value))
    ax.grid(False, axis="y")
    _label(ax, unit)
    _legend(figure, ax)
    return _drawn(figure)


def alike(stages: dict[str, Counts]) -> dict[str, str]:
    """Groups of documents that are one to a stage, by their size, the one that stays among them, in powers of two."""
    figure, [ax] = _figure(2.6)
    bits = range(1, max(4, *(size.bit_length() for counts in stages.values() for size in counts)))
    width = 0.8 / len(stages)
    for number, (name, counts) in enumerate(stages.items()):
        groups = [sum(count for size, count in counts.items() if size.bit_length() - 1 == bit) for bit in bits]
        shift = (number - (len(stages) - 1) / 2) * width
        ax.bar([bit + shift for bit in bits], groups, width=width * 0.92, color=_MARKS[number % len(_MARKS)], label=name)
    ax.set_xticks(list(bits), [f"{2**bit:,} to {2 ** (bit + 1) - 1:,}" for bit in bits])
    ax.yaxis.set_major_formatter(lambda value, _: short(value))
    ax.grid(False, axis="x")
    _label(ax, "documents of a group, the one that stays among them", "groups")
    _legend(figure, ax)
    return _drawn(figure)


def measure(name: str, groups: dict[str, dict[str, int]]) -> dict[str, str]:
    """The distribution of what a stage measured, of documents that stayed and that went: shares of each group."""
    import numpy as np

    figure, [ax] = _figure(1.9)
    values = {group: [(float(value), count) for value, count in counts.items()] for group, counts in groups.items()}
    everything = [value for pairs in values.values() for value, _ in pairs]
    low, high = min(everything), max(everything)
    # no more bins than values, or the rounding of measures would show as a comb
    half = (low == high) * max(abs(low) * 0.1, 0.05)  # a single value is a narrow bar, not one that doubles the axis
    wide = low > 0 and high > 100 * low  # counts of words: on an even axis most documents would share one bar
    edges = (np.geomspace if wide else np.linspace)(low - half, high + half, min(40, len(set(everything))) + 1)
    ax.set_xscale("log" if wide else "linear")
    for group, mark in (("kept", _MARKS[0]), ("dropped", _MARKS[1])):
        if pairs := values.get(group):
            numbers, weights = zip(*pairs, strict=True)
            share = np.histogram(numbers, edges, weights=np.array(weights) / sum(weights))[0]
            ax.stairs(share, edges, color=mark, fill=True, alpha=0.55, label=f"{group} ({sum(weights):,})")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _label(ax, name.replace("_", " "), "share of documents")
    _legend(figure, ax)
    return _drawn(figure)
