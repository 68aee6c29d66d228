"""The one export of each Megatron checkpoint: the Hugging Face folder that trainings and evaluations load."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mecellem.content import content_key, source_sha256
from mecellem.errors import UserError
from mecellem.files import locked

POLL_SECONDS = 1.0


def exported(checkpoint: Path, cache: Path) -> Path:
    """The Hugging Face folder of a checkpoint: exported and verified into `cache` by the first call, found there by others.

    Processes of one machine that call it at once wait for each other; of several ranks the first exports. Raises `UserError`
    for a damaged checkpoint and as the export does.
    """
    key = content_key([checkpoint_fingerprint(checkpoint), source_sha256("conversion", "megatron_recipes")])
    folder = cache / f"export-{key}"
    if int(os.environ.get("RANK", "0")) > 0:
        while not folder.is_dir():  # the launcher ends this process when the first rank fails
            time.sleep(POLL_SECONDS)
        return folder
    if not folder.is_dir():
        with locked(folder):
            if not folder.is_dir():
                _export(checkpoint, folder)
    return folder


def _export(checkpoint: Path, folder: Path) -> None:
    from conversion.export import export_checkpoint
    from megatron_recipes.engine.checkpoint import damage

    fault = damage(checkpoint)
    if fault is not None:
        raise UserError(f"{checkpoint} cannot be loaded, the checkpoint is damaged: {fault}; use another one")
    export_checkpoint(checkpoint, folder)


def checkpoint_fingerprint(checkpoint: Path) -> str:
    """Names, sizes and times of a checkpoint's files: changes when the run is trained again in the same folder."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return content_key([(str(path.relative_to(checkpoint)), path.stat().st_size, path.stat().st_mtime_ns) for path in files])
