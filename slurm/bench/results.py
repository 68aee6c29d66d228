"""What a sweep has found so far: every point's state and figures, the predictions of the others, and how far those are off."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mecellem.errors import UserError
from mecellem.files import atomic_write
from megatron_recipes.measurement import Measurement, read_measurement
from slurm.bench.scaling import FEWEST, Accuracy, accuracy, amounts, first_step, fit
from slurm.bench.sweep import Point, Sweep
from slurm.status import last_trouble

PREDICTIONS = "predictions.json"  # of points that were not measured when they were made


@dataclass(frozen=True, slots=True)
class Row:
    """A point: `state` is measured, refused, failed, under way, to do, or predicted; `why` explains one that has no figures.

    `predicted` seconds of a step come from the measured points, for a measured point from before it was.
    """

    point: Point
    state: str
    why: str = ""
    measurement: Measurement | None = None
    predicted: float | None = None

    @property
    def seconds(self) -> float | None:
        """Of a step: measured, else predicted."""
        return self.measurement.step_seconds if self.measurement else self.predicted

    @property
    def speed(self) -> float | None:
        """Tokens per second of one rank."""
        if self.seconds is None:
            return None
        return first_step(self.point.plan).tokens / self.seconds / self.point.ranks

    @property
    def mfu(self) -> float | None:
        """Share of the peak that the model's arithmetic has."""
        if self.seconds is None:
            return None
        plan = self.point.plan
        flops = plan.flops / plan.steps if self.measurement is None else self.measurement.flops_per_step
        return flops / (self.seconds * self.point.ranks * self.point.sweep.peak_tflops * 1e12)


@dataclass(frozen=True, slots=True)
class Found:
    """All rows in the sweep's order, and what the predictions are worth."""

    sweep: Sweep
    rows: Sequence[Row]
    accuracy: Accuracy

    def efficiency(self, row: Row) -> float | None:
        """Speed of a rank against that of the same choices on the fewest measured nodes."""
        same = [other for other in self.rows if other.point.choices == row.point.choices and other.measurement]
        if not same or row.speed is None:
            return None
        first = min(same, key=lambda other: other.point.nodes)
        assert first.speed is not None
        return row.speed / first.speed


def state_of(point: Point, folder: Path, submitted: Mapping[str, str], running: set[str]) -> Row:
    """What is known of one point. `submitted`: folder -> job_task; `running`: those that the queue still has."""
    try:
        point.plan  # noqa: B018 - raises for what training would refuse
    except UserError as error:
        return Row(point, "refused", str(error))
    out = folder / point.folder
    if found := read_measurement(out):
        return Row(point, "measured", measurement=found)
    if not point.measured:
        return Row(point, "predicted")
    task = submitted.get(point.folder)
    if task is None:
        return Row(point, "to do")
    if task in running:
        return Row(point, "under way", f"job {task}")
    records = sorted((out / "jobs").glob("*_*"), key=lambda path: path.stat().st_mtime)
    return Row(point, "failed", (last_trouble(records[-1]) if records else None) or f"job {task} never began")


def collect(sweep: Sweep, rows: Sequence[Row], folder: Path) -> Found:
    """Add predictions to the rows, and keep those of points that nobody has measured yet."""
    measured = {
        row.point.folder: (row.point.nodes, amounts(row.point.plan, row.point.nodes), row.measurement.step_seconds)
        for row in rows
        if row.measurement
    }
    earlier = read_predictions(folder)
    found = fit([parts for _, parts, _ in measured.values()], [s for _, _, s in measured.values()]) if measured else None
    complete: list[Row] = []
    for row in rows:
        name = row.point.folder
        if row.state == "refused" or (row.measurement and name not in earlier):
            complete.append(row)
            continue
        seconds = earlier[name]["seconds"] if row.measurement else None
        if not row.measurement and found and len(measured) >= FEWEST:
            seconds = found.seconds(amounts(row.point.plan, row.point.nodes))
            if seconds is not None:
                earlier[name] = {"seconds": seconds, "from": len(measured), "on": datetime.date.today().isoformat()}
        complete.append(Row(row.point, row.state, row.why, row.measurement, seconds))
    if earlier:
        with atomic_write(folder / PREDICTIONS) as handle:
            json.dump(earlier, handle, indent=1)
    return Found(sweep, complete, accuracy(measured))


def read_predictions(folder: Path) -> dict[str, dict]:
    """Folder of a point -> seconds of a step, from how many points, on what day. Raises `UserError` for another file."""
    path = folder / PREDICTIONS
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(item, dict) and "seconds" in item for item in content.values()):
        raise UserError(f"{path} is not what `mecellem slurm bench` writes: remove it (earlier predictions are lost)")
    return content
