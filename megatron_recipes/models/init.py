"""Initial weights that depend on the seed and the parameter's name only, so that every parallel layout starts alike."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator

import torch
from megatron.core import parallel_state
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

from megatron_recipes.models.decoder import DecoderModel
from megatron_recipes.models.modernbert import ModernBertModel

VOCABULARY = ("embedding.word_embeddings.weight", "output_layer.weight", "output_layer.bias")  # padded along rows
TRUNCATION = 2.0  # standard deviations (ModernBERT: truncated normal, cutoff factor 2)


def global_name(name: str, first_layer: int) -> str:
    """The parameter's name with the layer's number in the whole model instead of in this pipeline stage."""
    return re.sub(r"(?<=encoder\.layers\.|decoder\.layers\.)\d+", lambda match: str(int(match.group()) + first_layer), name)


def name_seed(seed: int, name: str) -> int:
    """63 bits from the run's seed and a parameter's global name."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def shard(full: torch.Tensor, dim: int, stride: int, rank: int, size: int) -> torch.Tensor:
    """This rank's part of a full tensor, as Megatron-Core's partition attributes describe it.

    `stride` is 2 for the gated MLP's first matrix: gate and up projections are split one by one.
    """
    blocks = full.chunk(stride * size, dim=dim)
    return torch.cat(blocks[rank::size], dim=dim)


def initial_weight(
    name: str, shape: torch.Size, seed: int, std: float, num_layers: int, truncation: float | None = TRUNCATION
) -> torch.Tensor:
    """The full fp32 tensor of one parameter: ones for norms, zeros for biases, else a normal distribution.

    It is cut off at `truncation` standard deviations, at none with None. Projections back into the residual stream and the
    encoder's head get std / sqrt(2 x layers), as in GPT-2, Megatron-LM and ModernBERT. (Not `torch.nn.init.trunc_normal_`:
    it draws other numbers since torch 2.13.)
    """
    if "norm" in name.rsplit(".", 2)[-2]:
        return torch.ones(shape)
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if re.search(r"linear_proj|linear_fc2|lm_head\.dense", name):
        std = std / math.sqrt(2.0 * num_layers)
    generator = torch.Generator().manual_seed(name_seed(seed, name))
    if truncation is None:
        return torch.empty(shape).normal_(0.0, std, generator=generator)
    inside = math.erf(truncation / math.sqrt(2.0))  # the probability that a normal variable is not cut off
    uniform = torch.empty(shape).uniform_(-inside, inside, generator=generator)
    return uniform.erfinv_().mul_(std * math.sqrt(2.0)).clamp_(-truncation * std, truncation * std)


@torch.no_grad()
def initialize_weights(model: ModernBertModel | DecoderModel, seed: int) -> None:
    """Fill the parameters of this rank's stage in place."""
    parameters = dict(model.named_parameters())
    for name, weight in initial_weights(model, seed):
        parameters[name].copy_(weight)


def initial_weights(model: ModernBertModel | DecoderModel, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Names of this rank's parameters and the values that they begin with, in their own type.

    Encoders draw from a truncated normal distribution (ModernBERT), decoders from a whole one (Megatron-LM, transformers).
    The tied head of the last stage equals the first's embedding.
    """
    truncation = TRUNCATION if isinstance(model, ModernBertModel) else None
    config = model.config
    rank = parallel_state.get_tensor_model_parallel_rank()
    size = parallel_state.get_tensor_model_parallel_world_size()
    first_layer = get_transformer_layer_offset(config)
    for own_name, parameter in model.named_parameters():
        name = global_name(own_name, first_layer)
        if name == "output_layer.weight" and model.share_embeddings_and_output_weights:
            name = "embedding.word_embeddings.weight"  # of which it is a copy on the last pipeline stage
        dim = getattr(parameter, "partition_dim", -1)
        split = size > 1 and getattr(parameter, "tensor_model_parallel", False)
        shape = list(parameter.shape)
        if split:
            shape[dim] *= size
        rows = model.vocab_size if name in VOCABULARY else shape[0]
        full = initial_weight(name, torch.Size([rows, *shape[1:]]), seed, config.init_std, config.num_layers, truncation)
        if rows < shape[0]:
            full = torch.cat([full, torch.zeros(shape[0] - rows, *shape[1:])])
        if split:
            full = shard(full, dim, getattr(parameter, "partition_stride", 1), rank, size)
        yield own_name, full.to(parameter.dtype)
