"""Which checkpoints of a run stay: the newest ones, and those that somebody wants (`checkpoints/keep.json`)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from mecellem.errors import UserError
from mecellem.files import atomic_write

KEEP = "keep.json"  # in RUN/checkpoints: {"step_0000150": "why it is kept", ...}
CHOSEN = "chosen by mecellem select"  # how the reason of the one checkpoint begins that `evaluation.selection` chose
STEP = re.compile(r"step_\d+")


def kept(run: Path) -> dict[str, str]:
    """Folder name -> why it must stay. Raises `UserError` for a `keep.json` that is something else."""
    path = run / "checkpoints" / KEEP
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not (isinstance(content, dict) and all(isinstance(reason, str) for reason in content.values())):
        raise UserError(
            f'{path} must hold one object like {{"step_0000150": "why it is kept"}}: mend it by hand, nothing is removed '
            "from this run before"
        )
    return content


def keep(checkpoint: Path, reason: str, instead_of: str | None = None) -> None:
    """Mark a checkpoint of a run so that retention leaves it; a second mark replaces the reason.

    With `instead_of` the marks whose reason begins so are removed: a later choice takes the place of an earlier one.
    """
    run = checkpoint.parent.parent
    before = kept(run)
    others = {name: why for name, why in before.items() if instead_of is None or not why.startswith(instead_of)}
    marked = dict(sorted((others | {checkpoint.name: reason}).items()))
    if marked != before:
        with atomic_write(run / "checkpoints" / KEEP) as handle:
            json.dump(marked, handle, indent=1, ensure_ascii=False)
            handle.write("\n")


def remove_old(run: Path, newest: int) -> list[str]:
    """Remove all checkpoints but the `newest` ones and those that are kept; returns the names of what went.

    A folder loses its name before its files go, so a killed removal leaves nothing that looks like a checkpoint.
    """
    assert newest >= 1
    folders = sorted(
        (path for path in (run / "checkpoints").iterdir() if path.is_dir() and STEP.fullmatch(path.name)),
        key=lambda path: int(path.name.removeprefix("step_")),
    )
    marked = kept(run)
    gone = [path for path in folders[:-newest] if path.name not in marked]
    for path in gone:
        # the name of an unfinished save: the next start of the run removes what a kill leaves of it
        unfinished = path.with_name(f".{path.name}.tmp")
        path.rename(unfinished)
        shutil.rmtree(unfinished)
    return [path.name for path in gone]
