"""Megatron checkpoints onto a new vocabulary: exported, cloned and imported again, each step verified as it always is.

A checkpoint spreads its rows over chunks and pads them; the conversions know both, and no second reader is needed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversion.clone.cloning import RECORD, clone_folder, refuse_existing
from conversion.clone.combination import Method
from mecellem.errors import UserError
from mecellem.files import atomic_write, disk_full_is_user_error, remove_leftovers, temporary_beside

if TYPE_CHECKING:
    from conversion.clone.weights import Cast


def clone_checkpoint(
    checkpoint: Path,
    tokenizer: Path,
    out: Path,
    method: Method = "mean",
    dtype: Cast = None,
    seed: int = 0,
    another_teacher: bool = False,
) -> dict[str, Any]:
    """Write the checkpoint `out` (step 0, any layout) from `checkpoint`; returns the record, `out/clone.json`.

    The two Hugging Face folders between lie beside `out` under a hidden name and are gone afterwards. Raises `UserError`, and
    leaves nothing, as export, clone and import do.
    """
    from conversion.export import export_checkpoint
    from conversion.hf_import import import_folder
    from megatron_recipes.engine.checkpoint import read_meta

    if dtype is not None and str(dtype) == "torch.float16":
        raise UserError("--dtype float16: Megatron checkpoints are in float32 or bfloat16")
    name = read_meta(checkpoint).name
    refuse_existing(out)
    with disk_full_is_user_error(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        between = temporary_beside(out)
        try:
            export_checkpoint(checkpoint, between / "teacher")
            record = clone_folder(between / "teacher", tokenizer, between / "clone", method, dtype, seed, another_teacher)
            shutil.rmtree(between / "teacher")
            import_folder(between / "clone", out, name=name)
        finally:
            shutil.rmtree(between, ignore_errors=True)
    record["teacher"]["name"] = name
    with atomic_write(out / RECORD) as handle:
        handle.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return record
