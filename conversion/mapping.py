"""Names and layouts: one table from Megatron-Core's parameters to Hugging Face's, used in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from megatron_recipes.config import DecoderConfig, EncoderConfig, ModelConfig

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Entry:
    """One parameter of Megatron-Core and the Hugging Face tensors that it consists of.

    `rows`: their rows follow each other. `grouped`: queries, keys and values (one tensor each, or one for the three) go
    through the heads group by group, so that TP splits whole groups.
    """

    megatron: str
    hf: tuple[str, ...]
    layout: Literal["rows", "grouped"] = "rows"
    vocabulary: bool = False  # rows are vocabulary entries, which Megatron-Core pads


def entries(model: ModelConfig) -> Iterator[Entry]:
    """Every parameter of a model, in the order of the forward pass. A tied head is no parameter."""
    return _encoder_entries(model) if isinstance(model, EncoderConfig) else _decoder_entries(model)


def _encoder_entries(model: EncoderConfig) -> Iterator[Entry]:
    yield Entry("embedding.word_embeddings.weight", ("model.embeddings.tok_embeddings.weight",), vocabulary=True)
    yield Entry("embedding_norm.weight", ("model.embeddings.norm.weight",))
    for layer in range(model.num_layers):
        megatron, hf = f"encoder.layers.{layer}.", f"model.layers.{layer}."
        if layer > 0:  # ModernBERT has no norm before its first attention
            yield Entry(megatron + "input_layernorm.weight", (hf + "attn_norm.weight",))
        yield Entry(megatron + "self_attention.linear_qkv.weight", (hf + "attn.Wqkv.weight",), "grouped")
        yield Entry(megatron + "self_attention.linear_proj.weight", (hf + "attn.Wo.weight",))
        yield Entry(megatron + "pre_mlp_layernorm.weight", (hf + "mlp_norm.weight",))
        yield Entry(megatron + "mlp.linear_fc1.weight", (hf + "mlp.Wi.weight",))
        yield Entry(megatron + "mlp.linear_fc2.weight", (hf + "mlp.Wo.weight",))
    yield Entry("encoder.final_layernorm.weight", ("model.final_norm.weight",))
    yield Entry("lm_head.dense.weight", ("head.dense.weight",))
    yield Entry("lm_head.norm.weight", ("head.norm.weight",))
    yield Entry("output_layer.bias", ("decoder.bias",), vocabulary=True)


def _decoder_entries(model: DecoderConfig) -> Iterator[Entry]:
    yield Entry("embedding.word_embeddings.weight", ("model.embed_tokens.weight",), vocabulary=True)
    for layer in range(model.num_layers):
        megatron, hf = f"decoder.layers.{layer}.", f"model.layers.{layer}."
        attention = hf + "self_attn."
        yield Entry(megatron + "input_layernorm.weight", (hf + "input_layernorm.weight",))
        parts = (attention + "q_proj.weight", attention + "k_proj.weight", attention + "v_proj.weight")
        yield Entry(megatron + "self_attention.linear_qkv.weight", parts, "grouped")
        if model.family == "qwen3":
            yield Entry(megatron + "self_attention.q_layernorm.weight", (attention + "q_norm.weight",))
            yield Entry(megatron + "self_attention.k_layernorm.weight", (attention + "k_norm.weight",))
        yield Entry(megatron + "self_attention.linear_proj.weight", (attention + "o_proj.weight",))
        yield Entry(megatron + "pre_mlp_layernorm.weight", (hf + "post_attention_layernorm.weight",))
        gated = (hf + "mlp.gate_proj.weight", hf + "mlp.up_proj.weight")
        yield Entry(megatron + "mlp.linear_fc1.weight", gated)
        yield Entry(megatron + "mlp.linear_fc2.weight", (hf + "mlp.down_proj.weight",))
    yield Entry("decoder.final_layernorm.weight", ("model.norm.weight",))
    if not model.tie_embeddings:
        yield Entry("output_layer.weight", ("lm_head.weight",), vocabulary=True)


def grouped_views(weight: Tensor, model: ModelConfig, parts: int) -> list[Tensor]:
    """Views into Megatron's `[(heads + 2 * groups) * d, h]`, one for each Hugging Face tensor, in the order of its rows."""
    groups = model.num_attention_heads if isinstance(model, EncoderConfig) else model.num_query_groups
    heads = model.num_attention_heads // groups
    by_group = weight.view(groups, heads + 2, model.head_dim, weight.size(1))
    if parts == 1:
        assert heads == 1, "one tensor for queries, keys and values: as many of each"
        return [by_group.transpose(0, 1)]
    return [by_group[:, :heads], by_group[:, heads : heads + 1], by_group[:, heads + 1 :]]


def grouped_rows(rows: int, model: ModelConfig, parts: int) -> list[list[tuple[int, int]]]:
    """For each Hugging Face tensor of `grouped_views` the runs [start, stop) of Megatron's rows that it consists of."""
    found = []
    for view in grouped_views(torch.arange(rows)[:, None], model, parts):
        order = view.flatten()
        breaks = (order.diff() != 1).nonzero().flatten() + 1
        found.append([(int(run[0]), int(run[-1]) + 1) for run in order.tensor_split(breaks)])
    return found


def hf_shapes(model: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the Hugging Face tensors, in the order of the forward pass, from Megatron's without vocabulary padding."""
    found: dict[str, tuple[int, ...]] = {}
    for entry in entries(model):
        rows, *others = shapes[entry.megatron]
        counts = [rows // len(entry.hf)] * len(entry.hf)
        if entry.layout == "grouped":
            views = grouped_views(torch.empty(rows, *others, device="meta"), model, len(entry.hf))
            counts = [view.numel() // view.size(-1) for view in views]
        found |= {name: (count, *others) for name, count in zip(entry.hf, counts, strict=True)}
    return found


def tied_head(model: ModelConfig) -> tuple[str, str] | None:
    """The Hugging Face names of a head that is the embedding, and of the embedding."""
    if isinstance(model, EncoderConfig):
        return "decoder.weight", "model.embeddings.tok_embeddings.weight"
    return ("lm_head.weight", "model.embed_tokens.weight") if model.tie_embeddings else None


def group(parts: list[Tensor], model: ModelConfig) -> Tensor:
    """Queries, keys and values in Megatron's order of rows; the inverse of `grouped_views`."""
    weight = torch.empty(sum(len(part) for part in parts), *parts[0].shape[1:], dtype=parts[0].dtype)
    for view, part in zip(grouped_views(weight, model, len(parts)), parts, strict=True):
        view.copy_(part.view(view.shape))
    return weight
