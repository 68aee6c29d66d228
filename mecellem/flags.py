"""Parse a command's flags with tyro: the function's signature is the interface, its docstring is the help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def parse_and_call(function: Callable[..., Any], argv: Sequence[str], prog: str) -> Any:
    """Parse `argv` against the signature of `function` and call it; wrong flags end with tyro's message, code 2."""
    import tyro

    return tyro.cli(function, args=list(argv), prog=prog, config=(tyro.conf.OmitArgPrefixes,))
