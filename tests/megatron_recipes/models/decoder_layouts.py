"""One training step of a small decoder on a layout: run by each rank (`python decoder_layouts.py FOLDER LAYOUT...`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from megatron_recipes.config import DecoderConfig, ParallelConfig, RopeScaling
from megatron_recipes.data.causal import split_for_context
from megatron_recipes.engine.launch import Rank, rank_from_environment
from megatron_recipes.engine.parallel import parallel_state

QWEN3 = DecoderConfig(
    family="qwen3",
    num_layers=4,
    hidden_size=64,
    ffn_hidden_size=96,
    num_attention_heads=4,
    num_query_groups=2,
    head_dim=24,
    vocab_size=333,  # padded to 384 at TP 1, to 512 at TP 2
    max_sequence_length=256,
    rope_theta=1e4,
    rope_scaling=RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
)
LLAMA = replace(QWEN3, family="llama", num_query_groups=1, rope_scaling=RopeScaling(), tie_embeddings=False)
SHAPES = {"qwen3": QWEN3, "llama": LLAMA}

ROWS, LENGTH, SEED = 2, 64, 3
DOCUMENTS = (  # of each micro batch: documents that end within, at and across the parts of context parallelism; whole rows
    torch.tensor([0, 5, 16, 50, 64, 65, 96, 128], dtype=torch.int32),
    None,
)


@dataclass(frozen=True)
class Layout:
    """`shape` is a name of `SHAPES`."""

    shape: str
    parallel: ParallelConfig

    @property
    def ranks(self) -> int:
        return self.parallel.model_ranks


LAYOUTS = {
    "TP2": Layout("qwen3", ParallelConfig(tensor=2)),
    "TP2+SP": Layout("qwen3", ParallelConfig(tensor=2, sequence=True)),
    "PP2": Layout("qwen3", ParallelConfig(pipeline=2)),
    "CP2": Layout("qwen3", ParallelConfig(context=2)),
    "TP2+SP beyond the query groups": Layout("llama", ParallelConfig(tensor=2, sequence=True)),
    "PP2, untied": Layout("llama", ParallelConfig(pipeline=2)),
    "TP2 x PP2 + SP": Layout("qwen3", ParallelConfig(tensor=2, pipeline=2, sequence=True)),
    "TP2 x CP2 + SP": Layout("qwen3", ParallelConfig(tensor=2, context=2, sequence=True)),
    "PP2 x CP2": Layout("llama", ParallelConfig(pipeline=2, context=2)),
}


def run(shape: DecoderConfig, parallel: ParallelConfig, place: Rank) -> tuple[list[float], dict[str, torch.Tensor], Any]:
    """(sum of losses and labels of each micro batch, gradients by global name, module). Inside `parallel_state`."""
    from megatron.core import parallel_state as mpu
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
    from megatron.core.pipeline_parallel import get_forward_backward_func

    from megatron_recipes.models.causal_attention import document_lengths, document_positions
    from megatron_recipes.models.decoder import DecoderModel, decoder_transformer_config
    from megatron_recipes.models.init import initialize_weights

    config = decoder_transformer_config(replace(shape, init_std=0.1), parallel, torch.float32)
    model = DecoderModel(config, shape)
    initialize_weights(model, SEED)
    wrapped = DistributedDataParallel(config, DistributedDataParallelConfig(grad_reduce_in_fp32=True), model)
    config.finalize_model_grads_func = finalize_model_grads
    rank, size = mpu.get_context_parallel_rank(), mpu.get_context_parallel_world_size()
    found: list[float] = []

    def loss(losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict]:
        count = (losses != 0).sum().to(torch.int)
        sums = torch.stack([losses.detach().double().sum(), count.double()])
        torch.distributed.all_reduce(sums, group=mpu.get_context_parallel_group())
        found.extend(sums.tolist())
        return losses.sum(), count, {}

    def own(tokens: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(split_for_context(tokens.numpy(), rank, size))

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        for number, cu_seqlens in enumerate(DOCUMENTS):
            generator = torch.Generator().manual_seed(number)
            ids = torch.randint(0, shape.vocab_size, (ROWS, LENGTH + 1), generator=generator)
            labels = ids[:, 1:].clone()
            labels[:, ::7] = -100
            positions = document_positions(document_lengths(ROWS, LENGTH, cu_seqlens), ids.device).view(ROWS, LENGTH)
            yield own(ids[:, :-1]), own(labels), own(positions), cu_seqlens

    def forward_step(iterator: Iterator, module: torch.nn.Module) -> tuple[torch.Tensor, Callable]:
        ids, labels, positions, cu_seqlens = next(iterator)
        return module(ids, labels=labels, cu_seqlens=cu_seqlens, positions=positions), loss

    wrapped.train()
    wrapped.zero_grad_buffer()
    get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=batches(),
        model=[wrapped],
        num_microbatches=len(DOCUMENTS),
        seq_length=ROWS * LENGTH,
        micro_batch_size=1,
        forward_only=False,
    )
    return found, {name: parameter.main_grad for name, parameter in model.named_parameters()}, model


def compare(gradients: dict[str, torch.Tensor], model: Any, expected: dict[str, torch.Tensor]) -> float:
    """The largest difference of this rank's gradients to its part of the single process's, relative to their largest."""
    from megatron.core import parallel_state as mpu
    from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

    from megatron_recipes.models.init import global_name, shard

    rank, size = mpu.get_tensor_model_parallel_rank(), mpu.get_tensor_model_parallel_world_size()
    parameters = dict(model.named_parameters())
    worst = 0.0
    for name, gradient in gradients.items():
        whole = global_name(name, get_transformer_layer_offset(model.config))
        if whole == "output_layer.weight" and model.share_embeddings_and_output_weights:
            whole = "embedding.word_embeddings.weight"
        full, parameter = expected[whole], parameters[name]
        if size > 1 and getattr(parameter, "tensor_model_parallel", False):
            dim, stride = parameter.partition_dim, getattr(parameter, "partition_stride", 1)
            if whole in ("embedding.word_embeddings.weight", "output_layer.weight"):
                full = torch.cat([full[: model.vocab_size], torch.zeros(size * len(gradient) - model.vocab_size, full.size(1))])
            full = shard(full, dim, stride, rank, size)
        assert full.shape == gradient.shape, (name, full.shape, gradient.shape)
        worst = max(worst, float((gradient - full).abs().max() / expected[whole].abs().max()))
    return worst


def main(folder: Path, names: list[str]) -> None:
    place = rank_from_environment()
    assert place is not None and place.store is not None
    for number, name in enumerate(names):
        layout = LAYOUTS[name]
        expected = torch.load(folder / f"{layout.shape}.pt")
        own = Rank(place.rank, place.world_size, place.local_rank, f"{place.store}_{number}")
        with parallel_state(own, layout.parallel, seed=place.rank):
            losses, gradients, model = run(SHAPES[layout.shape], layout.parallel, own)
            result = {"losses": losses, "gradients": compare(gradients, model, expected["gradients"])}
        (folder / f"{name}.{place.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
