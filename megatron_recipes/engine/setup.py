"""From a run and its task to Megatron-Core's objects: model, DDP wrapper, optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer import get_megatron_optimizer
from megatron.core.transformer.module import Float16Module

from megatron_recipes.config import RunConfig
from megatron_recipes.engine import runtime
from megatron_recipes.models.dtypes import DTYPES
from megatron_recipes.models.fp8_settings import FP8_SETTINGS


@dataclass(slots=True)
class Training:
    """What a training step needs. `model` is the bare module (for checkpoints), `wrapped` the DDP around it."""

    model: Any  # a ModernBertModel or a DecoderModel: both say in `streamed` what passes between pipeline stages
    wrapped: Any
    optimizer: Any
    weight_decay: float


def build_training(config: RunConfig, model: torch.nn.Module, bucket_size: int | None = None) -> Training:
    """Everything for training this rank's stage `model`, in the order that Megatron-LM builds it.

    `bucket_size`: parameters that are reduced together; None: Megatron-Core's default, from 40 million on.
    """
    bf16 = config.precision != "fp32"
    model = model.to(runtime.device())
    megatron: Any = model.config
    wrapped = DistributedDataParallel(
        megatron,
        DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            use_distributed_optimizer=config.optimizer.distributed,
            overlap_grad_reduce=True,
            overlap_param_gather=config.optimizer.distributed,
            bucket_size=bucket_size,
            check_for_nan_in_grad=False,  # the loop looks at the loss of every step
            fp8_param_gather=config.fp8.param_gather,
        ),
        Float16Module(megatron, model) if bf16 else model,
    )
    optimizer = get_megatron_optimizer(optimizer_config(config), [wrapped])
    megatron.finalize_model_grads_func = finalize_model_grads
    megatron.grad_scale_func = optimizer.scale_loss
    megatron.no_sync_func = wrapped.no_sync
    training = Training(model, wrapped, optimizer, config.optimizer.weight_decay)
    set_rates(training, 0.0)
    return training


def optimizer_config(config: RunConfig) -> MegatronOptimizerConfig:
    """Megatron-Core's view of the optimizer settings; `set_rates` sets the learning rate of each step."""
    settings = config.optimizer
    return MegatronOptimizerConfig(
        optimizer="adam",
        lr=0.0,
        min_lr=0.0,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        adam_eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        clip_grad=settings.clip_grad,
        bf16=config.precision != "fp32",
        fp8_recipe=FP8_SETTINGS.get(config.precision, {}).get("fp8_recipe"),  # block scaling's weights have no flat view
        params_dtype=DTYPES[config.precision],
        use_distributed_optimizer=settings.distributed,
        overlap_param_gather=settings.distributed,
    )


def set_rates(training: Training, learning_rate: float) -> None:
    """Give every parameter group the rate, and the weight decay that Megatron-Core's multiplier leaves it (0 for norms)."""
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_mult", 1.0)
        group["weight_decay"] = training.weight_decay * group.get("wd_mult", 1.0)
