"""What stands beside every trained model: versions, and the picture of its loss."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mecellem import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSS, HELD_OUT, RECALL, QUIET = "#0072b2", "#d55e00", "#009e73", "#66707c"  # Okabe and Ito
MEAN_OF = 20  # the curve's smooth line is a running mean over a 20th of the steps
LOOKS: Any = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9.5, "legend.frameon": False}


def versions() -> dict[str, str]:
    """Of everything that may move a digit."""
    names = ("sentence-transformers", "transformers", "torch", "accelerate", "datasets", "tokenizers")
    return {"mecellem": __version__} | {name: version(name) for name in names}


def png(make: Callable[[], Figure]) -> bytes:
    """The figure that `make` draws, in the looks of these pictures. The same training gives the same bytes."""
    import matplotlib as mpl

    content = io.BytesIO()
    with mpl.rc_context(LOOKS):
        make().savefig(content, format="png", dpi=140, metadata={"Software": None})
    return content.getvalue()


def plot_loss(axes: Axes, losses: Sequence[float]) -> None:
    """The loss at every step, and its running mean."""
    import numpy as np

    window = max(1, len(losses) // MEAN_OF)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(np.arange(1, len(losses) + 1), losses, color=LOSS, alpha=0.3, linewidth=1)
    axes.plot(np.arange(window, len(losses) + 1), smooth, color=LOSS, linewidth=1.8, label="loss in training")
    axes.set_ylabel("loss", color=QUIET)
