"""Models in Megatron-Core for conversion: a rank's part, a whole one with its weights, and the outline of one without."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from megatron_recipes.config import EncoderConfig, ModelConfig, ParallelConfig, Precision
from megatron_recipes.engine import checkpoint, runtime
from megatron_recipes.engine.refusals import refuse_stock_window


def build(model: ModelConfig, parallel: ParallelConfig, dtype: torch.dtype) -> torch.nn.Module:
    """This rank's stage in local layers, on its GPU or the CPU. Call inside `engine.parallel.parallel_state`."""
    return _module(model, parallel, dtype, on_cpu=not runtime.has_cuda()).to(runtime.device())


def _module(model: ModelConfig, parallel: ParallelConfig, dtype: torch.dtype, on_cpu: bool) -> Any:
    if isinstance(model, EncoderConfig):
        from megatron_recipes.models.modernbert import ModernBertModel, encoder_config

        encoder = encoder_config(model, parallel, dtype)
        encoder.use_cpu_initialization = on_cpu
        module = ModernBertModel(encoder, model.vocab_size, model.max_sequence_length, layer_spec="local")
        refuse_stock_window(module)
        return module
    from megatron_recipes.models.decoder import DecoderModel, decoder_transformer_config

    decoder = decoder_transformer_config(model, parallel, dtype)
    decoder.use_cpu_initialization = on_cpu
    return DecoderModel(decoder, model)


def outline(model: ModelConfig, dtype: torch.dtype) -> Any:
    """A whole model whose parameters have shapes and types but no memory. Inside `single_process`."""
    with torch.device("meta"):
        module = _module(model, ParallelConfig(), dtype, on_cpu=True)
    if not isinstance(model, EncoderConfig):
        module.set_rope(model.rope_theta, model.rope_scaling)  # the frequencies that it computed have no memory either
    return module.eval()


def load_whole(folder: Path) -> tuple[torch.nn.Module, checkpoint.CheckpointMeta]:
    """A checkpoint of any layout as one module in the dtype it was trained in. Inside `single_process`."""
    from megatron_recipes.models.dtypes import DTYPES

    meta = checkpoint.read_meta(folder)
    module = build(meta.model, ParallelConfig(), DTYPES[cast(Precision, meta.precision)])
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
