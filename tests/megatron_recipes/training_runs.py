"""Start real training runs of a small model through the command line, and read what they wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 240

# 1,100 entries become 1,152 at TP 1 and 1,280 at TP 2: vocabulary padding differs between layouts. 6 steps of 1,024 tokens
SMALL = {
    "model.num-layers": 4,
    "model.hidden-size": 64,
    "model.ffn-hidden-size": 96,
    "model.num-attention-heads": 4,
    "model.vocab-size": 1100,
    "model.local-attention": 16,
    "data.sequence-length": 64,
    "data.validation-sequences": 20,
    "schedule.global-batch-size": 16,
    "schedule.micro-batch-size": 4,
    "schedule.train-tokens": 6 * 1024,
    "schedule.warmup-tokens": 2048,
    "schedule.decay-tokens": 2048,
    "optimizer.lr": 3e-3,
    "precision": "fp32",
    "checkpoint-interval": 3,
    "validation-interval": 3,
}


@dataclass(frozen=True)
class Runner:
    """Starts `mecellem train mursit_tiny` on the small corpus."""

    data: Path

    def command(self, out: Path, **overrides: object) -> list[str]:
        nproc = overrides.pop("nproc", None)
        values = {
            **SMALL,
            "data.tokenizer": self.data / "tokenizer",
            "data.train": self.data / "train",
            "data.validation": self.data / "validation",
            **{name.replace("__", ".").replace("_", "-"): value for name, value in overrides.items()},
        }
        flags = [part for name, value in values.items() for part in (f"--{name}", str(value))]
        switches = [flag for flag in flags if flag not in ("True",)]
        extra = [] if nproc is None else ["--nproc", str(nproc)]
        return [sys.executable, "-m", "mecellem", "train", "mursit_tiny", "--out", str(out), *extra, *switches]

    def start(self, out: Path, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None, **overrides: object):
        """`prefix`: words before the command, such as `bash -c 'ulimit ...; exec "$@"' bash`."""
        return subprocess.Popen(
            [*prefix, *self.command(out, **overrides)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )

    def finish(self, process: subprocess.Popen[str], code: int = 0) -> str:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == code, output
        return output

    def __call__(self, out: Path, code: int = 0, prefix: Sequence[str] = (), **overrides: object) -> str:
        return self.finish(self.start(out, prefix, **overrides), code)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in metrics(run) if "loss" in line}


def validation_losses(run: Path) -> dict[int, float]:
    return {line["step"]: line["validation_loss"] for line in metrics(run) if "validation_loss" in line}


def steps_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count('"loss"') if path.exists() else 0


def checkpoint_names(run: Path) -> list[str]:
    return sorted(item.name for item in (run / "checkpoints").iterdir() if item.is_dir())


def wait_for(condition: Callable[[], object], process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run did not get there in time"
        time.sleep(0.02)


def rank_pid(launcher: int, rank: int) -> int | None:
    """The process that the launcher started for a rank, once it is there."""
    for child in map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()):
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return child
    return None
