"""A training that was stopped: its checkpoints beside the folder that it will write, and whether they are its own."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from mecellem.errors import UserError
from mecellem.files import atomic_write, fsync_folder

IDENTITY = "identity.json"
COMPLETE = "complete.json"  # written last: what has none was cut off while it was being saved
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class Unfinished:
    """`TARGET.unfinished/`: one file that says whose checkpoints these are, and the checkpoints."""

    def __init__(self, target: Path) -> None:
        """Nothing is written before the first checkpoint."""
        self.target = target
        self.folder = target.with_name(f"{target.name}.unfinished")

    def open(self, identity: dict[str, Any]) -> Path | None:
        """The newest whole checkpoint of a training with this identity; None where there is none.

        Raises `UserError` when the checkpoints are those of another training.
        """
        path = self.folder / IDENTITY
        if not path.is_file():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != identity:
            differ = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
            raise UserError(
                f"{self.folder} holds checkpoints of a training with other {' and '.join(differ)}: give the same command to "
                "go on with it, or remove the folder to begin anew"
            )
        whole = [checkpoint for checkpoint in self._checkpoints() if (checkpoint / COMPLETE).is_file()]
        return max(whole, key=step_of, default=None)

    def _checkpoints(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if CHECKPOINT.fullmatch(path.name)]

    def begin(self, identity: dict[str, Any], resume: Path | None) -> None:
        """Make the folder for checkpoints; what was cut off while it was saved goes away."""
        with atomic_write(self.folder / IDENTITY) as handle:
            handle.write(json.dumps(identity, indent=1) + "\n")
        for checkpoint in self._checkpoints():
            if resume is None or step_of(checkpoint) > step_of(resume):
                shutil.rmtree(checkpoint)

    def complete(self, checkpoint: Path, facts: dict[str, Any]) -> None:
        """Mark a checkpoint as whole, once it is on the disk."""
        for path in checkpoint.rglob("*"):
            if path.is_file():
                with open(path, "rb") as handle:
                    os.fsync(handle.fileno())
        fsync_folder(checkpoint)
        with atomic_write(checkpoint / COMPLETE) as handle:
            handle.write(json.dumps(facts) + "\n")

    def drop_if_empty(self) -> None:
        """Remove the folder unless it holds a whole checkpoint, with which a training could go on."""
        if self.folder.is_dir() and not any((path / COMPLETE).is_file() for path in self._checkpoints()):
            self.remove()

    def remove(self) -> None:
        """The training has ended: its checkpoints are of no use."""
        shutil.rmtree(self.folder, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """The optimiser step of a checkpoint, by its name."""
    match = CHECKPOINT.fullmatch(checkpoint.name)
    assert match, checkpoint
    return int(match[1])


def facts_of(checkpoint: Path | None) -> dict[str, Any]:
    """What was noted with a whole checkpoint: `seconds`, `tokens` and `slots` so far; zeros at the beginning."""
    if checkpoint is None:
        return {"seconds": 0.0, "tokens": 0, "slots": 0}
    facts: dict[str, Any] = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
    return facts
