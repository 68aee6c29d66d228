"""Where a command writes: can it, and what did a killed process leave there."""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from mecellem.errors import UserError

# The names that mecellem.files.temporary_beside gives; the number is the process that wrote it.
_TEMPORARY = re.compile(r"\.(?P<target>.+)\.tmp-(?P<process>\d+)-[0-9a-f]{8}")
# A file that was not touched for so long is no one's work; a live writer, here or on another node, writes every second.
_ABANDONED_S = 3600


def check_output_folder(folder: Path, flag: str) -> None:
    """Raise `UserError` unless `folder` is one that can be written to or made. `flag` names the flag in the message."""
    for part in (folder.absolute(), *folder.absolute().parents):
        if part.exists():
            if not part.is_dir():
                raise UserError(f"{flag}: {part} is a file where a folder is needed: choose another place")
            if not os.access(part, os.W_OK | os.X_OK):
                raise UserError(f"{flag}: {part} may not be written to: check its permissions or choose another place")
            return


def remove_leftovers(targets: Iterable[Path]) -> None:
    """Remove temporary files and folders of `targets` which a dead process left more than an hour ago."""
    for target in targets:
        for path in target.parent.glob(f".{glob.escape(target.name)}.tmp-*"):
            match = _TEMPORARY.fullmatch(path.name)
            if match and not _alive(int(match["process"])) and _is_old(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_old(path: Path) -> bool:
    newest = max(item.stat().st_mtime for item in (path, *path.rglob("*")))
    return time.time() - newest > _ABANDONED_S
