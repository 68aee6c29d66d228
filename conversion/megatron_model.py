"""A whole model of a checkpoint in one process, and a rank's part of one: what conversion reads and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from megatron_recipes.config import ModelConfig, ParallelConfig
from megatron_recipes.engine import checkpoint, runtime
from megatron_recipes.engine.refusals import refuse_stock_window


def build(model: ModelConfig, parallel: ParallelConfig, dtype: torch.dtype) -> torch.nn.Module:
    """This rank's stage in local layers, on its GPU or the CPU. Call inside `engine.parallel.parallel_state`."""
    from megatron_recipes.models.modernbert import ModernBertModel, encoder_config

    module = ModernBertModel(
        encoder_config(model, parallel, dtype), model.vocab_size, model.max_sequence_length, layer_spec="local"
    )
    refuse_stock_window(module)
    return module.to(runtime.device())


def load_whole(folder: Path) -> tuple[torch.nn.Module, checkpoint.CheckpointMeta]:
    """A checkpoint of any layout as one module in the dtype it was trained in. Inside `single_process`."""
    from megatron_recipes.models.modernbert import DTYPES

    meta = checkpoint.read_meta(folder)
    module = build(meta.model, ParallelConfig(), DTYPES[meta.precision])
    checkpoint.load(folder, module, optimizer=None)
    return module, meta


@torch.no_grad()
def fill_rank(module: torch.nn.Module, full: dict[str, torch.Tensor]) -> None:
    """Copy this rank's part of a full, unpadded Megatron state dict into `module`; vocabulary padding becomes zero."""
    from megatron.core import parallel_state
    from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

    from megatron_recipes.models.init import global_name, shard

    rank = parallel_state.get_tensor_model_parallel_rank()
    size = parallel_state.get_tensor_model_parallel_world_size()
    first_layer = get_transformer_layer_offset(module.config)
    parameter: Any  # Megatron-Core sets attributes on its parameters
    for name, parameter in module.named_parameters():
        name = global_name(name, first_layer)
        if name == "output_layer.weight":
            name = "embedding.word_embeddings.weight"
        weight = full[name]
        split = size > 1 and getattr(parameter, "tensor_model_parallel", False)
        if split:
            dim, stride = parameter.partition_dim, getattr(parameter, "partition_stride", 1)
            rows = parameter.shape[dim] * size
            if weight.shape[dim] < rows:
                padding = torch.zeros(rows - weight.shape[dim], *weight.shape[1:], dtype=weight.dtype)
                weight = torch.cat([weight, padding])
            weight = shard(weight, dim, stride, rank, size)
        elif weight.shape[0] < parameter.shape[0]:
            padding = torch.zeros(parameter.shape[0] - weight.shape[0], *weight.shape[1:], dtype=weight.dtype)
            weight = torch.cat([weight, padding])
        assert weight.shape == parameter.shape, (name, weight.shape, parameter.shape)
        parameter.copy_(weight)
