"""How fast a configuration trains: a few steps as a run does them, timed, with nothing saved but the figures."""

from __future__ import annotations

import os
import platform
import resource
import socket
import time
from importlib.metadata import version
from pathlib import Path

import torch
import torch.distributed as dist

from mecellem.console import progress_bar
from mecellem.doctor import cpu_name
from mecellem.errors import UserError
from megatron_recipes.config import RunConfig
from megatron_recipes.engine import runtime
from megatron_recipes.engine.launch import Rank
from megatron_recipes.engine.loop import set_start
from megatron_recipes.engine.setup import build_training
from megatron_recipes.engine.step import train_step
from megatron_recipes.engine.stop import StopSignal
from megatron_recipes.engine.tasks import Task
from megatron_recipes.measurement import Measurement, write_measurement
from megatron_recipes.plan import flops_per_token


def measure(config: RunConfig, task: Task, out: Path, place: Rank, steps: int, warmup: int, stop: StopSignal) -> None:
    """Train `warmup` + `steps` steps from fresh weights and write `OUT/measurement.json`; the first `warmup` do not count.

    All ranks call it inside `engine.parallel.parallel_state`. Every step takes the batch and the layout of the run's first
    step. Raises `UserError` when a signal ends it early: half a measurement is none.
    """
    training = build_training(config, task.build_model())
    set_start(config, training)
    shape, seconds = task.shape(1), []
    with progress_bar() as bar:
        row = bar.add_task("measure", total=warmup + steps, visible=place.rank == 0)
        for step in range(1, warmup + steps + 1):
            if task.shape(step) != shape:
                raise UserError(f"step {step} has another shape than the first: lower --measure, which times the first stage")
            started = time.perf_counter()
            result = train_step(task, training, step, bool(stop.received))
            if result.stop:
                raise UserError(f"stopped at step {step} of {warmup + steps}: nothing was measured")
            seconds.append(time.perf_counter() - started)
            bar.advance(row)
    hosts: list[str | None] = [None] * place.world_size
    dist.all_gather_object(hosts, os.environ.get("SLURMD_NODENAME") or socket.gethostname())
    memory = _highest(peak_memory())
    if place.rank == 0:
        write_measurement(
            out,
            Measurement(
                recipe=config.name,
                ranks=place.world_size,
                nodes=sorted({str(host) for host in hosts}),
                layout={
                    "tensor": config.parallel.tensor,
                    "pipeline": config.parallel.pipeline,
                    "context": config.parallel.context,
                    "data": config.parallel.data_parallel(place.world_size),
                },
                precision=config.precision,
                tokens_per_step=shape.tokens,
                flops_per_step=flops_per_token(config, shape.sequence_length) * shape.tokens,
                warmup_seconds=seconds[:warmup],
                seconds=seconds[warmup:],
                peak_memory_bytes=int(memory),
                device=torch.cuda.get_device_name() if runtime.has_cuda() else cpu_name(),
                versions={
                    "python": platform.python_version(),
                    **{name: version(name) for name in ("mecellem", "torch", "megatron-core")},
                },
            ),
        )


def peak_memory() -> float:
    """Bytes that this rank has held at most: on its GPU, as PyTorch's allocator counts, or of the process without one."""
    if runtime.has_cuda():
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _highest(value: float) -> float:
    """The largest over all ranks."""
    highest = torch.tensor(value, dtype=torch.float64, device=runtime.device())
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return float(highest)
