"""Whether a command can write where it was told to."""

from __future__ import annotations

import os
from pathlib import Path

from mecellem.errors import UserError
from mecellem.manifest import CorpusManifest, manifest_path, verify_files


def check_output_folder(folder: Path, flag: str) -> None:
    """Raise `UserError` unless `folder` is one that can be written to or made. `flag` names the flag in the message."""
    for part in (folder.absolute(), *folder.absolute().parents):
        if part.is_symlink() and not part.exists():
            raise UserError(
                f"{flag}: {part} is a link to {part.readlink()}, which is not there: make that, or choose another place"
            )
        if part.exists():
            if not part.is_dir():
                raise UserError(f"{flag}: {part} is a file where a folder is needed: choose another place")
            if not os.access(part, os.W_OK | os.X_OK):
                raise UserError(f"{flag}: {part} may not be written to: check its permissions or choose another place")
            return


def is_whole(prefix: Path, manifest: CorpusManifest) -> bool:
    """Whether the files of the corpus at `prefix` are those of its manifest, hashes included."""
    try:
        verify_files(prefix, manifest)
    except UserError:
        return False
    return True


def refuse_other_corpus(prefix: Path) -> None:
    """Raise `UserError` where a corpus stands that a run may need: it would refuse to go on over other tokens."""
    for path in (manifest_path(prefix), Path(f"{prefix}.bin"), Path(f"{prefix}.idx")):
        if path.exists():
            raise UserError(
                f"{path} exists already and is not known to be of the same text, tokenizer and engine: choose another --out, "
                "or add --replace if no run needs the older corpus"
            )
