"""The same random decoder in transformers and in Megatron-Core, by a mapping of its own: conversion's is checked apart."""

from __future__ import annotations

from typing import Any

import torch

from megatron_recipes.config import DecoderConfig, ParallelConfig, RopeScaling

YARN = RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
LLAMA3 = RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=64)

SHAPES = {
    "qwen3, tied": DecoderConfig(
        family="qwen3",
        num_layers=3,
        hidden_size=64,
        ffn_hidden_size=96,
        num_attention_heads=4,
        num_query_groups=2,
        head_dim=32,  # not 64 / 4
        vocab_size=500,  # no multiple of 128
        max_sequence_length=256,
        rope_theta=1e6,
    ),
    "qwen3, untied, one group": DecoderConfig(
        family="qwen3",
        num_layers=2,
        hidden_size=48,
        ffn_hidden_size=80,
        num_attention_heads=6,
        num_query_groups=1,
        head_dim=8,
        vocab_size=256,
        max_sequence_length=256,
        rope_theta=5e3,
        tie_embeddings=False,
    ),
    "llama, tied": DecoderConfig(
        family="llama",
        num_layers=3,
        hidden_size=72,
        ffn_hidden_size=100,
        num_attention_heads=9,
        num_query_groups=3,
        head_dim=8,
        vocab_size=333,
        max_sequence_length=256,
        rope_theta=1e5,
        norm_epsilon=1e-5,
    ),
    "llama, untied, every head its own": DecoderConfig(
        family="llama",
        num_layers=2,
        hidden_size=64,
        ffn_hidden_size=128,
        num_attention_heads=4,
        num_query_groups=4,
        head_dim=16,
        vocab_size=300,
        max_sequence_length=256,
        rope_theta=1e4,
        tie_embeddings=False,
    ),
}


def hf_class(shape: DecoderConfig) -> type:
    from transformers import LlamaForCausalLM, Qwen3ForCausalLM

    return {"qwen3": Qwen3ForCausalLM, "llama": LlamaForCausalLM}[shape.family]


def hf_config(shape: DecoderConfig) -> Any:
    """The configuration that transformers needs for the same model."""
    from transformers import LlamaConfig, Qwen3Config

    rope: dict[str, Any] = {"rope_theta": shape.rope_theta, "rope_type": "default"}
    scaling = shape.rope_scaling
    if scaling.rope_type != "none":
        rope |= {"rope_type": scaling.rope_type, "factor": scaling.factor}
        rope["original_max_position_embeddings"] = scaling.original_max_position_embeddings
        names = {"yarn": ("beta_fast", "beta_slow"), "llama3": ("low_freq_factor", "high_freq_factor")}
        rope |= {name: getattr(scaling, name) for name in names[scaling.rope_type]}
    return {"qwen3": Qwen3Config, "llama": LlamaConfig}[shape.family](
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_query_groups,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_sequence_length,
        rms_norm_eps=shape.norm_epsilon,
        tie_word_embeddings=shape.tie_embeddings,
        rope_parameters=rope,
        attention_bias=False,
    )


def megatron_state(hf: dict[str, torch.Tensor], shape: DecoderConfig) -> dict[str, torch.Tensor]:
    """transformers' tensors (weights or gradients) under Megatron-Core's names and in its order of rows."""
    groups = shape.num_query_groups
    found = {
        "embedding.word_embeddings.weight": hf["model.embed_tokens.weight"],
        "decoder.final_layernorm.weight": hf["model.norm.weight"],
    }
    if not shape.tie_embeddings:
        found["output_layer.weight"] = hf["lm_head.weight"]
    for layer in range(shape.num_layers):
        theirs, ours = f"model.layers.{layer}.", f"decoder.layers.{layer}."
        q, k, v = (hf[f"{theirs}self_attn.{name}_proj.weight"].unflatten(0, (groups, -1)) for name in "qkv")
        found |= {
            f"{ours}self_attention.linear_qkv.weight": torch.cat([q, k, v], dim=1).flatten(0, 1),
            f"{ours}self_attention.linear_proj.weight": hf[f"{theirs}self_attn.o_proj.weight"],
            f"{ours}input_layernorm.weight": hf[f"{theirs}input_layernorm.weight"],
            f"{ours}pre_mlp_layernorm.weight": hf[f"{theirs}post_attention_layernorm.weight"],
            f"{ours}mlp.linear_fc1.weight": torch.cat([hf[f"{theirs}mlp.{name}_proj.weight"] for name in ("gate", "up")]),
            f"{ours}mlp.linear_fc2.weight": hf[f"{theirs}mlp.down_proj.weight"],
        }
        if shape.family == "qwen3":
            for name in "qk":
                found[f"{ours}self_attention.{name}_layernorm.weight"] = hf[f"{theirs}self_attn.{name}_norm.weight"]
    return found


def build(shape: DecoderConfig, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """The model in Megatron-Core on one rank."""
    from megatron_recipes.models.decoder import DecoderModel, decoder_transformer_config

    return DecoderModel(decoder_transformer_config(shape, ParallelConfig(), dtype), shape, **settings)


@torch.no_grad()
def pair(shape: DecoderConfig) -> tuple[Any, Any]:
    """(ours, theirs) with the same random weights, norms included."""
    torch.manual_seed(0)
    theirs = hf_class(shape)(hf_config(shape)).eval()
    for name, parameter in theirs.named_parameters():
        parameter.uniform_(0.5, 1.5) if "norm" in name else parameter.normal_(std=0.05)
    ours = build(shape).eval()
    state = megatron_state(theirs.state_dict(), shape)
    parameters = dict(ours.named_parameters())
    assert parameters.keys() == state.keys()
    for name, parameter in parameters.items():
        parameter.zero_()[: len(state[name])] = state[name]
    return ours, theirs


def tokens(shape: DecoderConfig, rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, shape.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))
