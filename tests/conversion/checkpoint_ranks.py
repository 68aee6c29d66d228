"""Run by several ranks: Megatron-Core loads a checkpoint that conversion wrote, changes it and saves it with its optimizer.

    python checkpoint_ranks.py CHECKPOINT TP PP OUT

Each rank holds its parameters against those that `fill_rank` cuts from `CHECKPOINT/../full.pt`, a full state dict.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from whole_states import fill_rank

from conversion.megatron_model import build
from megatron_recipes.config import ParallelConfig
from megatron_recipes.engine import checkpoint as checkpoints
from megatron_recipes.engine.launch import rank_from_environment
from megatron_recipes.engine.parallel import parallel_state


def optimizer_of(module: torch.nn.Module) -> tuple[Any, Any]:
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

    settings = DistributedDataParallelConfig(use_distributed_optimizer=True, grad_reduce_in_fp32=True)
    wrapped = DistributedDataParallel(module.config, settings, module)
    optimizer = get_megatron_optimizer(OptimizerConfig(lr=0.1, weight_decay=0.0, use_distributed_optimizer=True), [wrapped])
    return wrapped, optimizer


def main(folder: Path, layout: ParallelConfig, out: Path) -> None:
    place = rank_from_environment()
    assert place is not None
    with parallel_state(place, layout, seed=0):
        meta = checkpoints.read_meta(folder)
        loaded, expected = (build(meta.model, layout, torch.float32) for _ in range(2))
        torch.nn.utils.vector_to_parameters(torch.zeros(sum(p.numel() for p in loaded.parameters())), loaded.parameters())
        checkpoints.load_weights(folder, loaded)
        fill_rank(expected, torch.load(folder.parent / "full.pt"))
        for (name, found), (_, wanted) in zip(loaded.named_parameters(), expected.named_parameters(), strict=True):
            assert torch.equal(found, wanted), name
        with torch.no_grad():
            for parameter in loaded.parameters():
                parameter.mul_(2.0)
        wrapped, optimizer = optimizer_of(loaded)
        wrapped.zero_grad_buffer()
        wrapped.finish_grad_sync()
        optimizer.step()  # without gradients: only its states begin
        meta = dataclasses.replace(meta, step=1, layout=checkpoints.layout())
        checkpoints.save(out, meta, wrapped.module, optimizer, folder / "tokenizer")


if __name__ == "__main__":
    main(Path(sys.argv[1]), ParallelConfig(tensor=int(sys.argv[2]), pipeline=int(sys.argv[3])), Path(sys.argv[4]))
