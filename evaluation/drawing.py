"""How every figure looks: two themes, one size of dots, PNG bytes that depend on the data alone. No pyplot: no screen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one variant: page, text, quiet text, grid, then the marks in their fixed roles."""

    name: str
    page: str
    text: str
    quiet: str
    grid: str
    model: str
    baseline: str
    mark: str


LIGHT = Theme("light", "#ffffff", "#1c2127", "#66707c", "#e4e7eb", "#1f6feb", "#c4570c", "#7a3fc4")
DARK = Theme("dark", "#161b22", "#e8ecf1", "#96a0ac", "#2b323b", "#6cb0ff", "#ff9e57", "#c39bff")
THEMES = (LIGHT, DARK)


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    """Matplotlib's settings for one theme, restored afterwards."""
    import matplotlib as mpl

    settings: Any = {
        "figure.facecolor": theme.page,
        "axes.facecolor": theme.page,
        "savefig.facecolor": theme.page,
        "text.color": theme.text,
        "axes.labelcolor": theme.quiet,
        "axes.edgecolor": theme.grid,
        "axes.titlecolor": theme.text,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.labelsize": 9.5,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.quiet,
        "ytick.color": theme.quiet,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "font.size": 9.5,
        "lines.solid_capstyle": "round",
    }
    with mpl.rc_context(settings):
        yield


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, gap: float = 0.04, **keywords: Any
) -> tuple[Figure, Any]:
    """A figure of `width` x `height` inches with `rows` x `columns` axes, `gap` inches around each."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=gap))
    return figure, figure.subplots(rows, columns, **keywords)


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, without a time stamp, so that the same data gives the same file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Centred moving average with shorter windows at both ends; same length as `values`."""
    kernel = np.ones(min(width, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def token_axis(axes: Axes) -> None:
    """Label the horizontal axis in tokens, with K, M, B."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("tokens seen")
    axes.margins(x=0.02)
