"""`mecellem evaluate prefetch`: everything that tasks read, into a folder for machines without internet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.tasks.facts import GROUPS
from evaluation.tasks.find import Tasks, near
from evaluation.tasks.hub import fetch_snapshot, find_snapshot
from evaluation.tasks.hub_tasks import HUB, HUB_GROUPS
from evaluation.tasks.local import LOCAL
from mecellem.console import human_time, step
from mecellem.errors import UserError
from mecellem.flags import parse_and_call

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_TASKS = ("local", "tr-mteb", "mecellem-legal")


def prefetch(tasks: tuple[str, ...] = DEFAULT_TASKS, cache: Path = Path(".cache")) -> None:
    """Download what tasks read, so that `mecellem evaluate --cache` works without internet (set HF_HUB_OFFLINE=1 there).

    Data sets of the hub go to CACHE/hub, packages to CACHE/packages, and the tasks made of packages to CACHE/tasks; copy the
    folder to the cluster. What arrived is not fetched again, and an interrupted download is continued.

    Args:
        tasks: tasks and groups of tasks: local, tr-mteb, mecellem-legal, mizan
        cache: folder to fill
    """
    names = _names(tasks)
    with step(f"fetching {len(names)} tasks", reads=(), writes=[cache]) as console:
        failed = {}
        total = 0
        for name in names:
            try:
                total += _fetch(name, cache, console)
            except UserError as error:
                failed[name] = str(error)
                console.print(f"  {name}: {error}", markup=False)
        console.print(f"{len(names) - len(failed)} of {len(names)} tasks are here, {_size(total)}", markup=False)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(names)} tasks could not be fetched ({', '.join(failed)}): run the same command again; "
            f"{cache} keeps what arrived"
        )


def _names(asked: Sequence[str]) -> list[str]:
    """The tasks behind names and groups. Raises `UserError` before anything is fetched."""
    names: dict[str, None] = {}
    for name in asked:
        if name == "corpus":
            raise UserError("--tasks corpus: these tasks are made of your own corpus folder, there is nothing to fetch")
        if name == "local":
            names |= dict.fromkeys(LOCAL)
        elif name in HUB_GROUPS:
            names |= {task.name: None for task in HUB_GROUPS[name]}
        elif name in LOCAL or name in HUB:
            names[name] = None
        else:
            raise UserError(f"--tasks {name}: no task and no group of that name; {near(name, [*GROUPS, *LOCAL, *HUB])}")
    return list(names)


def _fetch(name: str, cache: Path, console: Console) -> int:
    """Fetch what one task reads and say how large it is; bytes."""
    started = time.perf_counter()
    if name in LOCAL:
        tasks = Tasks([name], corpus=None, cache=cache)
        size = sum(path.stat().st_size for path in tasks.folder(tasks.found.facts[0]).iterdir())
        where = tasks.found.facts[0].source
    else:
        task = HUB[name]
        here = find_snapshot(cache, task.repo, task.revision, task.configs) is not None
        snapshot, _ = fetch_snapshot(cache, task.repo, task.revision, task.configs)
        size, where = snapshot.bytes, f"{task.repo} at {snapshot.commit[:7]}" + (", was here already" if here else "")
    took = human_time(time.perf_counter() - started)
    console.print(f"  {name}: {_size(size)}, {where}, {took}", markup=False)
    return size


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem evaluate prefetch`."""
    parse_and_call(prefetch, argv, prog="mecellem evaluate prefetch")
    return 0
