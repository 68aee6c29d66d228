"""`measurement.json`: what `mecellem train RECIPE --measure STEPS` found, for `mecellem slurm bench` and for people."""

from __future__ import annotations

import statistics
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mecellem.errors import UserError
from mecellem.files import atomic_write

FILE = "measurement.json"


class Measurement(BaseModel):
    """Seconds of single steps, and what they computed where. `peak_memory_bytes`: of the rank that held most at any time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    ranks: int = Field(ge=1)
    nodes: list[str]
    layout: dict[str, int]  # ranks of tensor, pipeline, context and data parallelism
    precision: str
    tokens_per_step: int
    flops_per_step: float  # as `mecellem train --dry-run` counts them
    warmup_seconds: list[float]
    seconds: list[float] = Field(min_length=1)
    peak_memory_bytes: int
    device: str
    versions: dict[str, str]

    @property
    def step_seconds(self) -> float:
        """The median step."""
        return statistics.median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Of all ranks together, at the median step."""
        return self.tokens_per_step / self.step_seconds

    def mfu(self, peak_tflops: float) -> float:
        """Model FLOPs utilisation: the share that the model's own arithmetic has of the ranks' peak (PaLM, appendix B)."""
        return self.flops_per_step / (self.step_seconds * self.ranks * peak_tflops * 1e12)


def write_measurement(out: Path, measurement: Measurement) -> None:
    """Write `OUT/measurement.json`, whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / FILE) as handle:
        handle.write(measurement.model_dump_json(indent=1) + "\n")


def read_measurement(out: Path) -> Measurement | None:
    """The measurement in folder `out`, None where there is none. Raises `UserError` for a file that is something else."""
    path = out / FILE
    try:
        return Measurement.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; remove it and measure again") from None
