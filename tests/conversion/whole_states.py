"""Whole Megatron state dicts in memory, and a rank's part of one: what tests hold the streamed conversion against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from conversion.mapping import entries, group
from megatron_recipes.config import ModelConfig


def to_megatron(state: Mapping[str, torch.Tensor], model: ModelConfig) -> dict[str, torch.Tensor]:
    """A Hugging Face state dict as a full Megatron one, without vocabulary padding."""
    result = {}
    for entry in entries(model):
        parts = [state[name] for name in entry.hf]
        result[entry.megatron] = group(parts, model) if entry.layout == "grouped" else torch.cat(parts)
    return result


@torch.no_grad()
def fill_rank(module: torch.nn.Module, full: Mapping[str, torch.Tensor]) -> None:
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
        if name not in full:  # a tied head on the last pipeline stage
            name = "embedding.word_embeddings.weight"
        weight = full[name]
        split = size > 1 and getattr(parameter, "tensor_model_parallel", False)
        dim = parameter.partition_dim if split else 0
        rows = parameter.shape[dim] * (size if split else 1)
        if weight.shape[dim] < rows:
            padding = torch.zeros(rows - weight.shape[dim], *weight.shape[1:], dtype=weight.dtype)
            weight = torch.cat([weight, padding])
        if split:
            weight = shard(weight, dim, getattr(parameter, "partition_stride", 1), rank, size)
        assert weight.shape == parameter.shape, (name, weight.shape, parameter.shape)
        parameter.copy_(weight)
