"""Whether a command can write where it was told to."""

from __future__ import annotations

import os
from pathlib import Path

from mecellem.errors import UserError


def check_output_folder(folder: Path, flag: str) -> None:
    """Raise `UserError` unless `folder` is one that can be written to or made. `flag` names the flag in the message."""
    for part in (folder.absolute(), *folder.absolute().parents):
        if part.exists():
            if not part.is_dir():
                raise UserError(f"{flag}: {part} is a file where a folder is needed: choose another place")
            if not os.access(part, os.W_OK | os.X_OK):
                raise UserError(f"{flag}: {part} may not be written to: check its permissions or choose another place")
            return
