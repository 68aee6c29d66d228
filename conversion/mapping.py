"""Names and layouts: one table from Megatron-Core's ModernBERT to Hugging Face's, used in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from megatron_recipes.config import ModelConfig

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Entry:
    """One parameter: its two names, whether its rows are vocabulary entries, and how its rows are ordered."""

    megatron: str
    hf: str
    vocabulary: bool = False
    qkv: bool = False


def entries(model: ModelConfig) -> Iterator[Entry]:
    """Every parameter of the model, in the order of the forward pass. The tied decoder weight is the embedding."""
    yield Entry("embedding.word_embeddings.weight", "model.embeddings.tok_embeddings.weight", vocabulary=True)
    yield Entry("embedding_norm.weight", "model.embeddings.norm.weight")
    for layer in range(model.num_layers):
        megatron, hf = f"encoder.layers.{layer}.", f"model.layers.{layer}."
        if layer > 0:  # ModernBERT has no norm before its first attention
            yield Entry(megatron + "input_layernorm.weight", hf + "attn_norm.weight")
        yield Entry(megatron + "self_attention.linear_qkv.weight", hf + "attn.Wqkv.weight", qkv=True)
        yield Entry(megatron + "self_attention.linear_proj.weight", hf + "attn.Wo.weight")
        yield Entry(megatron + "pre_mlp_layernorm.weight", hf + "mlp_norm.weight")
        yield Entry(megatron + "mlp.linear_fc1.weight", hf + "mlp.Wi.weight")
        yield Entry(megatron + "mlp.linear_fc2.weight", hf + "mlp.Wo.weight")
    yield Entry("encoder.final_layernorm.weight", "model.final_norm.weight")
    yield Entry("lm_head.dense.weight", "head.dense.weight")
    yield Entry("lm_head.norm.weight", "head.norm.weight")
    yield Entry("output_layer.bias", "decoder.bias", vocabulary=True)


def qkv_to_megatron(weight: Tensor, heads: int) -> Tensor:
    """`[3 * heads * d, h]` ordered (q, k, v), heads inside -> heads, (q, k, v) inside, so that TP splits whole heads."""
    rows, hidden = weight.shape
    return weight.view(3, heads, rows // (3 * heads), hidden).transpose(0, 1).reshape(rows, hidden)


def qkv_to_hf(weight: Tensor, heads: int) -> Tensor:
    """The inverse of `qkv_to_megatron`."""
    rows, hidden = weight.shape
    return weight.view(heads, 3, rows // (3 * heads), hidden).transpose(0, 1).reshape(rows, hidden)


def to_hf(state: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """A full Megatron state dict (TP 1, PP 1) as a Hugging Face one: vocabulary padding removed, heads regrouped."""
    return _convert(state, model, lambda entry: (entry.megatron, entry.hf), qkv_to_hf, cut=True)


def to_megatron(state: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """A Hugging Face state dict as a full Megatron one, without vocabulary padding (the loader adds it)."""
    return _convert(state, model, lambda entry: (entry.hf, entry.megatron), qkv_to_megatron, cut=False)


def _convert(
    state: dict[str, Tensor],
    model: ModelConfig,
    names: Callable[[Entry], tuple[str, str]],
    qkv: Callable[[Tensor, int], Tensor],
    cut: bool,
) -> dict[str, Tensor]:
    result = {}
    for entry in entries(model):
        source, target = names(entry)
        weight = state[source].detach()
        if entry.qkv:
            weight = qkv(weight, model.num_attention_heads)
        if entry.vocabulary and cut:
            weight = weight[: model.vocab_size]
        result[target] = weight.contiguous()
    return result
