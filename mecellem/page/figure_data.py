"""What a matplotlib figure shows, as CSV: read from the figure itself, so that it cannot say anything else."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.container import BarContainer, ErrorbarContainer
    from matplotlib.figure import Figure

COLUMNS = ("panel", "series", "x", "y", "low", "high", "value")
Row = tuple[str, str, str, str, str, str]  # without the panel


def figure_csv(figure: Figure) -> str:
    """Every line, bar, point, interval, step and heat map of `figure`: one row a point, columns `COLUMNS`.

    `panel` is an axes' title (or its number), `series` the label of the legend; `low` and `high` are the ends of an
    interval or of a step, or empty; `value` is a heat map's. Categories appear by their tick's name. Call it after the figure
    was drawn or saved, so that ticks have their names.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, axes in enumerate(figure.axes, start=1):
        panel = next((title for place in ("left", "center", "right") if (title := axes.get_title(loc=place))), str(number))
        writer.writerows((" ".join(panel.split()), *row) for row in _rows(axes))
    return text.getvalue()


def _rows(axes: Axes) -> Iterator[Row]:
    x, y = _Names(axes.xaxis), _Names(axes.yaxis)
    bars, errors = _containers(axes)
    taken = {id(artist) for bar in bars for artist in bar.patches}
    taken |= {id(part) for error in errors for part in _parts(error)}
    for container in bars:
        yield from _bar_rows(container, x, y)
    for error in errors:
        yield from _error_rows(error, x, y)
    for number, line in enumerate(axes.lines, start=1):
        if id(line) in taken or line.get_transform() != axes.transData:
            continue  # a marker of a place on one axis (axvline), not data
        label = _label(line, number)
        for a, b in np.asarray(line.get_xydata()):
            yield (label, x(a), y(b), "", "", "")
    yield from _step_rows(axes, taken)
    for number, collection in enumerate(axes.collections, start=1):
        if id(collection) not in taken:
            yield from _collection_rows(collection, _label(collection, number), x, y)
    for image in axes.images:
        yield from _grid_rows(image.get_array(), x, y)


class _Names:
    """The names of an axis's ticks where they are categories, else the figure itself."""

    def __init__(self, axis: Axis) -> None:
        from matplotlib.category import StrCategoryLocator
        from matplotlib.ticker import FixedLocator

        named = isinstance(axis.get_major_locator(), FixedLocator | StrCategoryLocator)
        names = [label.get_text() for label in axis.get_ticklabels()] if named else []
        self.names = {float(place): name for place, name in zip(axis.get_majorticklocs(), names, strict=False) if name}

    def __call__(self, value: Any) -> str:
        value = float(value)
        # bars of one category stand side by side, at most half a step from its tick
        nearest = min(self.names, key=lambda place: abs(place - value), default=None)
        if nearest is not None and abs(nearest - value) <= 0.5:
            return " ".join(self.names[nearest].split())
        return _figure(value)


def _figure(value: float) -> str:
    return "" if not math.isfinite(value) else f"{value:.10g}"


def _label(artist: Any, number: int) -> str:
    label = str(artist.get_label())
    return f"series {number}" if label.startswith("_") or not label else " ".join(label.split())


def _containers(axes: Axes) -> tuple[list[BarContainer], list[ErrorbarContainer]]:
    from matplotlib.container import BarContainer, ErrorbarContainer

    bars = [item for item in axes.containers if isinstance(item, BarContainer)]
    return bars, [item for item in axes.containers if isinstance(item, ErrorbarContainer)]


def _parts(error: ErrorbarContainer) -> Iterable[Any]:
    line, caps, ranges = error.lines
    return [part for part in (line, *caps, *ranges) if part is not None]


def _bar_rows(container: BarContainer, x: _Names, y: _Names) -> Iterator[Row]:
    label = _label(container, 1)
    for patch in container.patches:
        low, width, height = (patch.get_x(), patch.get_y()), patch.get_width(), patch.get_height()
        if container.orientation == "horizontal":
            yield (label, _figure(width), y(low[1] + height / 2), "", "", "")
        else:
            yield (label, x(low[0] + width / 2), _figure(height), "", "", "")


def _error_rows(error: ErrorbarContainer, x: _Names, y: _Names) -> Iterator[Row]:
    line, _, ranges = error.lines
    label = _label(error, 1)
    segments = ranges[0].get_segments() if ranges else []
    middles = np.asarray(line.get_xydata()) if line is not None else [segment.mean(axis=0) for segment in segments]
    along = 1 if error.has_yerr else 0
    for (a, b), segment in zip(middles, segments, strict=False):
        yield (label, x(a), y(b), _figure(segment[0][along]), _figure(segment[-1][along]), "")


def _step_rows(axes: Axes, taken: set[int]) -> Iterator[Row]:
    from matplotlib.patches import StepPatch

    steps = [patch for patch in axes.patches if isinstance(patch, StepPatch) and id(patch) not in taken]
    for number, patch in enumerate(steps, start=1):
        values, edges, _ = patch.get_data()
        for value, low, high in zip(values, edges[:-1], edges[1:], strict=True):
            yield (_label(patch, number), _figure((low + high) / 2), _figure(value), _figure(low), _figure(high), "")


def _collection_rows(collection: Any, label: str, x: _Names, y: _Names) -> Iterator[Row]:
    from matplotlib.collections import LineCollection, PathCollection, QuadMesh

    if isinstance(collection, PathCollection):
        for a, b in np.asarray(collection.get_offsets()):
            yield (label, x(a), y(b), "", "", "")
    elif isinstance(collection, LineCollection):
        for segment in collection.get_segments():
            (a, b), (c, d) = segment[0], segment[-1]
            along = (a, c) if a != c else (b, d)
            yield (label, x((a + c) / 2), y((b + d) / 2), _figure(min(along)), _figure(max(along)), "")
    elif isinstance(collection, QuadMesh):
        array = collection.get_array()
        if array is not None:
            yield from _grid_rows(array, x, y)


def _grid_rows(array: Any, x: _Names, y: _Names) -> Iterator[Row]:
    """A heat map: both axes are places."""
    for row, values in enumerate(np.ma.filled(array, np.nan)):
        for column, value in enumerate(values):
            yield ("", x(column), y(row), "", "", _figure(float(value)))
