"""A matplotlib figure as an `<svg>` element that stands in a page: text stays text, the same figure gives the same bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_svg(figure: Figure, transparent: bool = False) -> str:
    """The figure without an XML declaration; `transparent`: the page shows through where nothing is drawn."""
    import matplotlib as mpl

    data = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mecellem", "font.family": "sans-serif"}):
        figure.savefig(data, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
    content = data.getvalue()
    return content[content.index("<svg") :]
