"""One optimizer step and one validation pass through Megatron-Core's pipeline schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state as mpu
from megatron.core.pipeline_parallel import get_forward_backward_func

from megatron_recipes.engine import runtime
from megatron_recipes.engine.setup import Training, set_rates
from megatron_recipes.engine.tasks import StepShape, Task


@dataclass(frozen=True, slots=True)
class StepResult:
    """Over the whole global batch: mean loss, the number of tokens it is over, gradient norm before clipping, stop votes."""

    loss: float
    loss_tokens: int
    grad_norm: float
    stop: bool


def _run(
    task: Task, training: Training, batches: Iterator[Any], count: int, shape: StepShape, forward_only: bool
) -> list[dict[str, torch.Tensor]]:
    def forward_step(iterator: Iterator[Any], model: torch.nn.Module) -> tuple[torch.Tensor, Callable]:
        return task.forward(model, next(iterator))

    rows, length = shape.micro_batch_size, shape.sequence_length
    if training.model.streamed:  # between pipeline stages activations are one stream `[b * s, 1, h]`
        rows, length = 1, rows * length
    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=batches,
        model=[training.wrapped],
        num_microbatches=count,
        seq_length=length,
        micro_batch_size=rows,
        forward_only=forward_only,
    )


def _world_sums(results: list[dict[str, torch.Tensor]], size: int, extra: Sequence[float] = ()) -> list[float]:
    """Sums over micro batches and data-parallel ranks, the same on every rank, with `extra` summed over all ranks."""
    sums = torch.zeros(size, dtype=torch.float64, device=runtime.device())
    if results and mpu.get_tensor_model_parallel_rank() == 0:  # filled on the last pipeline stage only
        sums = torch.stack([item["sums"] for item in results]).sum(0)
    sums = torch.cat([sums, torch.tensor(list(extra), dtype=torch.float64, device=sums.device)])
    dist.all_reduce(sums)
    return sums.tolist()


def train_step(task: Task, training: Training, step: int, stop: bool) -> StepResult:
    """Optimizer step `step` (from 1). `stop` is this rank's wish to stop; the result says whether any rank has it."""
    size, rank = mpu.get_data_parallel_world_size(), mpu.get_data_parallel_rank()
    shape = task.shape(step)
    # the schedule is a function of the tokens seen, so it needs no state of its own in a checkpoint
    set_rates(training, task.learning_rate(step))
    task.prepare_model(training.model, step)
    training.wrapped.train()
    training.wrapped.zero_grad_buffer()
    training.optimizer.zero_grad()
    count = shape.global_batch_size // (shape.micro_batch_size * size)
    results = _run(task, training, task.batches(step, rank, size), count, shape, forward_only=False)
    _, grad_norm, _ = training.optimizer.step()
    loss, tokens, votes = _world_sums(results, 2, [float(stop)])
    return StepResult(loss / max(tokens, 1.0), int(tokens), float(grad_norm or 0.0), votes > 0)


def validate(task: Task, training: Training, step: int) -> dict[str, float]:
    """`validation_*` figures of the task after `step`, on the same tokens every time."""
    size, rank = mpu.get_data_parallel_world_size(), mpu.get_data_parallel_rank()
    batches = task.validation_batches(step, rank, size)
    training.wrapped.eval()
    results = _run(task, training, iter(batches), len(batches), task.shape(step), forward_only=True)
    return dict(task.validation_figures(_world_sums(results, task.validation_sums)))


def learning_rate(training: Training) -> float:
    """The rate that the last step used."""
    return float(training.optimizer.param_groups[0]["lr"])
