"""Start real training runs of a small model through the command line, and read what they wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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


# Qwen3's form, with more rows than the tokenizer has entries. Three steps of each of the two stages in CURRICULUM
SMALL_DECODER = {
    "model.num-layers": 4,
    "model.hidden-size": 64,
    "model.ffn-hidden-size": 96,
    "model.num-attention-heads": 4,
    "model.num-query-groups": 2,
    "model.head-dim": 16,
    "model.vocab-size": 1110,
    "model.max-sequence-length": 256,
    "data.validation-sequences": 20,
    "micro-batch-tokens": 256,
    "init-from": "None",
    "parallel.tensor": 1,
    "parallel.no-sequence": True,
    "precision": "fp32",
    "checkpoint-interval": 2,
    "validation-interval": 3,
}
CURRICULUM = """
stages:
  - name: general
    tokens: 3_072
    seq_len: 64
    global_batch_tokens: 1_024
    lr: {peak: 3.0e-3, warmup_tokens: 2_048}
    sources:
      - {path: GENERAL, weight: 0.75}
      - {path: FORMAL, weight: 0.25}
  - name: formal
    tokens: 3_072
    seq_len: 128
    global_batch_tokens: 1_024
    lr: {peak: 3.0e-3, final: 3.0e-4, decay: linear}
    attention: across
    rope_theta: 2_000_000
    rope_scaling: {rope_type: yarn, factor: 2.0, original_max_position_embeddings: 128}
    sources:
      - {path: FORMAL, weight: 0.6}
      - {path: GENERAL, weight: 0.4}
"""
# the model as the last stage leaves it: what a run has that starts from its checkpoint
LAST_STAGE = {
    "model.rope-theta": 2e6,
    "model.rope-scaling.rope-type": "yarn",
    "model.rope-scaling.factor": 2.0,
    "model.rope-scaling.original-max-position-embeddings": 128,
}


@dataclass(frozen=True)
class Runner:
    """Starts `mecellem train RECIPE` on the small corpus."""

    data: Path
    recipe: str = "mursit_tiny"
    small: Mapping[str, object] = field(default_factory=lambda: SMALL)
    inputs: Sequence[str] = ("data.tokenizer", "data.train", "data.validation")

    def command(self, out: Path, **overrides: object) -> list[str]:
        nproc = overrides.pop("nproc", None)
        values = {
            **self.small,
            **{name: self.data / name.removeprefix("data.") for name in self.inputs},
            **{name.replace("__", ".").replace("_", "-"): value for name, value in overrides.items()},
        }
        if values.get("parallel.sequence"):
            values.pop("parallel.no-sequence", None)
        flags = [part for name, value in values.items() for part in (f"--{name}", str(value))]
        switches = [flag for flag in flags if flag not in ("True",)]
        extra = [] if nproc is None else ["--nproc", str(nproc)]
        return [sys.executable, "-m", "mecellem", "train", self.recipe, "--out", str(out), *extra, *switches]

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
