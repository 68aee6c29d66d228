"""Models in Megatron-Core for conversion: a rank's part, a whole one with its weights, and the outline of one without."""

from __future__ import annotations

from typing import Any

import torch

from megatron_recipes.config import EncoderConfig, ModelConfig, ParallelConfig
from megatron_recipes.engine import runtime
from megatron_recipes.engine.refusals import refuse_stock_window


def build(model: ModelConfig, parallel: ParallelConfig, dtype: torch.dtype) -> torch.nn.Module:
    """This rank's stage in local layers, on its GPU or the CPU. Call inside `engine.parallel.parallel_state`."""
    return _module(model, parallel, dtype, on_cpu=not runtime.has_cuda()).to(runtime.device())


def _module(model: ModelConfig, parallel: ParallelConfig, dtype: torch.dtype, on_cpu: bool, draw: bool = True) -> Any:
    if isinstance(model, EncoderConfig):
        from megatron_recipes.models.modernbert import ModernBertModel, encoder_config

        encoder = encoder_config(model, parallel, dtype)
        encoder.use_cpu_initialization, encoder.perform_initialization = on_cpu, draw
        module = ModernBertModel(encoder, model.vocab_size, model.max_sequence_length, layer_spec="local")
        refuse_stock_window(module)
        return module
    from megatron_recipes.models.decoder import DecoderModel, decoder_transformer_config

    decoder = decoder_transformer_config(model, parallel, dtype)
    decoder.use_cpu_initialization, decoder.perform_initialization = on_cpu, draw
    return DecoderModel(decoder, model)


def outline(model: ModelConfig, dtype: torch.dtype) -> Any:
    """A whole model whose parameters have shapes and types but no memory. Inside `single_process`."""
    with torch.device("meta"):
        module = _module(model, ParallelConfig(), dtype, on_cpu=True, draw=False)
    if not isinstance(model, EncoderConfig):
        module.set_rope(model.rope_theta, model.rope_scaling)  # the frequencies that it computed have no memory either
    return module.eval()
