"""Reading a run folder: `metrics.jsonl` (one JSON object a line) and the checkpoints that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

from mecellem.errors import UserError

STEP = re.compile(r"step_(\d+)")


def check_run(run: Path) -> None:
    """Raises `UserError` unless `run` is a folder with `run.yaml`."""
    if not (run / "run.yaml").is_file():
        raise UserError(f"{run} is not a run: it has no run.yaml; give the --out folder of `mecellem train`")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` in order; a half-written last line, left by a kill, is dropped.

    Raises `UserError` when the file is missing or another line is broken; the sentence names the line.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is missing: the run has not started; start it with `mecellem train`")
    lines = path.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            assert_step(row)
        except (orjson.JSONDecodeError, ValueError) as error:
            if number == len(lines):  # no newline after it: it was never finished
                break
            raise UserError(
                f"{path}, line {number} is broken ({error}): remove that line, or resume the run from its last checkpoint"
            ) from None
        rows.append(row)
    return rows


def assert_step(row: object) -> None:
    """Raises `ValueError` unless `row` is an object with an integer `step`."""
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError("an object with an integer step is needed")


def training_lines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of optimizer steps: `loss`, `lr`, `grad_norm`, `tokens_per_second`, `seconds`."""
    return [row for row in rows if "loss" in row]


def validation_lines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of validation passes: `validation_loss`, `validation_accuracy`."""
    return [row for row in rows if "validation_loss" in row]


def list_checkpoints(run: Path) -> dict[int, Path]:
    """Step -> folder of every finished checkpoint, in order of steps. Raises `UserError` when there is none."""
    found = {}
    for path in sorted((run / "checkpoints").glob("step_*")):
        match = STEP.fullmatch(path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    if not found:
        raise UserError(f"{run / 'checkpoints'} has no step_NNNNNNN: train at least until the first checkpoint")
    return dict(sorted(found.items()))


def checkpoint_fingerprint(checkpoint: Path) -> str:
    """Names, sizes and times of a checkpoint's files: changes when the run is trained again in the same folder."""
    from evaluation.cache import content_key

    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return content_key([(str(path.relative_to(checkpoint)), path.stat().st_size, path.stat().st_mtime_ns) for path in files])
