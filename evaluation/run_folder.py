"""Reading a run folder: `metrics.jsonl` (one JSON object a line) and the checkpoints that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mecellem.errors import UserError
from megatron_recipes.run_folder import read_metrics

STEP = re.compile(r"step_(\d+)")


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` in order. Raises `UserError` when the run has none yet, or one is broken."""
    rows = read_metrics(run)
    if not rows:
        raise UserError(f"{run / 'metrics.jsonl'} has no finished line: the run has not started; start `mecellem train`")
    return rows


def training_lines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of optimizer steps: `loss`, `lr`, `grad_norm`, `tokens_per_second`, `seconds`."""
    return [row for row in rows if "loss" in row]


def validation_lines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of validation passes: `validation_loss`, `validation_accuracy`."""
    return [row for row in rows if "validation_loss" in row]


def list_checkpoints(run: Path) -> dict[int, Path]:
    """Step -> folder of every finished checkpoint, in order of steps. Raises `UserError` when there is none."""
    # Names only: megatron_recipes.engine.checkpoint, which also looks inside, brings torch; a report needs none.
    found = {}
    for path in sorted((run / "checkpoints").glob("step_*")):
        match = STEP.fullmatch(path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    if not found:
        raise UserError(f"{run / 'checkpoints'} has no step_NNNNNNN: train at least until the first checkpoint")
    return dict(sorted(found.items()))
