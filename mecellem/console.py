"""What a person sees: every command says what it reads, what it writes and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mecellem.files import check_output_folder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

UNSEEN_WIDTH = 240  # columns where no terminal bounds a line; rich would cut tables in files and pipes to 80
HEADING_WIDTH = 80


def console() -> Console:
    """A rich console on standard output (rich is imported here so that `mecellem --help` stays fast)."""
    from rich.console import Console

    out = Console(soft_wrap=True, highlight=False)
    if not out.is_terminal:
        out.width = UNSEEN_WIDTH
    return out


def heading(out: Console, title: str) -> None:
    """A line with a title at its left."""
    from rich.markup import escape
    from rich.rule import Rule

    out.print(Rule(f"[bold]{escape(title)}", align="left"), width=min(out.width, HEADING_WIDTH))


def progress_bar(transient: bool = False) -> Progress:
    """A progress bar with count, elapsed time and time left; nothing where there is no terminal to redraw it on."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    out = console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=out,
        transient=transient,
        disable=not out.is_terminal,
    )


def human_time(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


@contextmanager
def step(title: str, reads: Iterable[Path | str] = (), writes: Iterable[Path | str] = ()) -> Iterator[Console]:
    """Frame one command: a heading with what it reads, then on success what it wrote and how long it took.

    `writes` is looked at once more when the work is done: a list may be filled until then. Raises `UserError`, before any
    work, for a path in it that may not be written.
    """
    for item in writes:
        if isinstance(item, Path):
            check_output_folder(item if item.is_dir() else item.parent, f"cannot write {item}")
    out = console()
    heading(out, title)
    read = [str(item) for item in reads]
    if read:
        out.print(f"reads   {', '.join(read)}", markup=False)
    started = time.perf_counter()
    yield out
    if written := [str(item) for item in writes]:
        out.print(f"wrote   {', '.join(written)}", markup=False)
    out.print(f"took    {human_time(time.perf_counter() - started)}", markup=False)
