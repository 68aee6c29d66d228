"""One optimizer step and one validation pass through Megatron-Core's pipeline schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from megatron.core import parallel_state as mpu
from megatron.core.pipeline_parallel import get_forward_backward_func

from megatron_recipes.config import RunConfig
from megatron_recipes.data.batches import MlmBatch, MlmDataset, training_batches, validation_batches
from megatron_recipes.engine import runtime
from megatron_recipes.engine.setup import Training


@dataclass(frozen=True, slots=True)
class StepResult:
    """Over the whole global batch: mean loss of masked tokens, their number, gradient norm before clipping, stop votes."""

    loss: float
    masked_tokens: int
    grad_norm: float
    stop: bool


def _tensors(batch: MlmBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    device = runtime.device()
    ids, labels, cu_seqlens = (torch.from_numpy(x) for x in (batch.input_ids, batch.labels, batch.cu_seqlens))
    return ids.to(device), labels.to(device), cu_seqlens.to(device)


def _training_loss(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Sum of losses and number of masked tokens; Megatron-Core divides gradients by the number in the global batch."""
    total = output.float().sum()
    count = torch.tensor(output.numel(), dtype=torch.int, device=output.device)
    return total, count, {"sums": torch.stack([total.detach().double(), count.double()])}


def _validation_loss(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    losses, right = output.double()
    count = torch.tensor(losses.numel(), dtype=torch.int, device=output.device)
    return losses.sum().float(), count, {"sums": torch.stack([losses.sum(), count.double(), right.sum()])}


def _run(
    config: RunConfig, training: Training, batches: Iterator[MlmBatch], count: int, loss: Callable, forward_only: bool
) -> list[dict[str, torch.Tensor]]:
    def forward_step(iterator: Iterator[MlmBatch], model: torch.nn.Module) -> tuple[torch.Tensor, Callable]:
        ids, labels, cu_seqlens = _tensors(next(iterator))
        return model(ids, cu_seqlens=cu_seqlens, labels=labels), loss

    rows, length = config.schedule.micro_batch_size, config.data.sequence_length
    if training.model.layer_spec == "transformer_engine":  # between stages, too, activations are one stream `[b * s, 1, h]`
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


def train_step(config: RunConfig, training: Training, dataset: MlmDataset, step: int, stop: bool) -> StepResult:
    """Optimizer step `step` (from 1). `stop` is this rank's wish to stop; the result says whether any rank has it."""
    size, rank = mpu.get_data_parallel_world_size(), mpu.get_data_parallel_rank()
    schedule = config.schedule
    # the schedule is a function of the tokens seen, so it needs no state of its own in a checkpoint
    training.scheduler.num_steps = step * config.tokens_per_step
    training.scheduler.step(increment=0)
    training.wrapped.train()
    training.wrapped.zero_grad_buffer()
    training.optimizer.zero_grad()
    results = _run(
        config,
        training,
        training_batches(dataset, step - 1, schedule.global_batch_size, schedule.micro_batch_size, rank, size),
        schedule.global_batch_size // (schedule.micro_batch_size * size),
        _training_loss,
        forward_only=False,
    )
    _, grad_norm, _ = training.optimizer.step()
    loss, count, votes = _world_sums(results, 2, [float(stop)])
    return StepResult(loss / max(count, 1.0), int(count), float(grad_norm or 0.0), votes > 0)


def validate(config: RunConfig, training: Training, dataset: MlmDataset) -> dict[str, float]:
    """Mean loss and top-1 accuracy on the masked tokens of the validation split; the same masks every time."""
    size, rank = mpu.get_data_parallel_world_size(), mpu.get_data_parallel_rank()
    micro = config.schedule.micro_batch_size
    batches = list(validation_batches(dataset, config.data.validation_sequences, micro, rank, size))
    training.wrapped.eval()
    results = _run(config, training, iter(batches), len(batches), _validation_loss, forward_only=True)
    loss, count, right = _world_sums(results, 3)
    return {
        "validation_loss": loss / count,
        "validation_accuracy": right / count,
        "validation_tokens": count,
    }


def learning_rate(training: Training) -> float:
    """The rate that the last step used."""
    return float(training.optimizer.param_groups[0]["lr"])
