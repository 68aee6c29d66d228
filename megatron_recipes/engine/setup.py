"""From a `RunConfig` to Megatron-Core's objects: model, DDP wrapper, optimizer, schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer import get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.transformer.module import Float16Module

from megatron_recipes.config import RunConfig
from megatron_recipes.engine import runtime
from megatron_recipes.engine.refusals import refuse_stock_window, resolve_layer_spec
from megatron_recipes.models.init import initialize_weights
from megatron_recipes.models.modernbert import DTYPES, ModernBertModel, encoder_config


@dataclass(slots=True)
class Training:
    """What a training step needs. `model` is the bare module (for checkpoints), `wrapped` the DDP around it."""

    model: ModernBertModel
    wrapped: Any
    optimizer: Any
    scheduler: OptimizerParamScheduler


def build_model(config: RunConfig) -> ModernBertModel:
    """This rank's stage with its initial weights, on this rank's device."""
    spec = resolve_layer_spec(config, runtime.has_cuda())
    fp8 = "hybrid" if config.precision == "fp8_hybrid" else None
    megatron = encoder_config(config.model, config.parallel, DTYPES[config.precision], fp8, spec)
    model = ModernBertModel(megatron, config.model.vocab_size, config.model.max_sequence_length, spec)
    refuse_stock_window(model)
    initialize_weights(model, config.seed)
    return model.to(runtime.device())


def build_training(config: RunConfig) -> Training:
    """Everything for training, in the order that Megatron-LM builds it."""
    bf16 = config.precision != "fp32"
    model = build_model(config)
    megatron = model.config
    wrapped = DistributedDataParallel(
        megatron,
        DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            use_distributed_optimizer=config.optimizer.distributed,
            overlap_grad_reduce=True,
            overlap_param_gather=config.optimizer.distributed,
            check_for_nan_in_grad=False,  # the loop looks at the loss of every step
        ),
        Float16Module(megatron, model) if bf16 else model,
    )
    optimizer = get_megatron_optimizer(optimizer_config(config), [wrapped])
    megatron.finalize_model_grads_func = finalize_model_grads
    megatron.grad_scale_func = optimizer.scale_loss
    megatron.no_sync_func = wrapped.no_sync
    return Training(model, wrapped, optimizer, build_scheduler(config, optimizer))


def optimizer_config(config: RunConfig) -> MegatronOptimizerConfig:
    """Megatron-Core's view of the optimizer settings."""
    settings = config.optimizer
    return MegatronOptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        min_lr=settings.lr * config.schedule.min_lr_ratio,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        adam_eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        clip_grad=settings.clip_grad,
        bf16=config.precision != "fp32",
        params_dtype=DTYPES[config.precision],
        use_distributed_optimizer=settings.distributed,
        overlap_param_gather=settings.distributed,
    )


def build_scheduler(config: RunConfig, optimizer: Any) -> OptimizerParamScheduler:
    """WSD in tokens: linear warm-up, stable, 1 - sqrt decay that ends with the last step."""
    total = config.steps * config.tokens_per_step
    settings, schedule = config.optimizer, config.schedule
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=settings.lr,
        min_lr=settings.lr * schedule.min_lr_ratio,
        lr_warmup_steps=schedule.warmup_tokens,
        lr_decay_steps=total,
        lr_decay_style="WSD",
        wsd_decay_steps=schedule.decay_tokens,
        lr_wsd_decay_style="minus_sqrt",
        start_wd=settings.weight_decay,
        end_wd=settings.weight_decay,
        wd_incr_steps=0,
        wd_incr_style="constant",
    )
