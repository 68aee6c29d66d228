"""What the settings of several stages have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _share(value: float) -> float:
    if value > 1:
        raise ValueError(f"{value:g} is more than all of it: this is a share, 0.75 is 75%")
    return value


# A part of a whole, at most 1; each setting says whether 0 is allowed, or switches something off.
Share = Annotated[float, AfterValidator(_share)]
