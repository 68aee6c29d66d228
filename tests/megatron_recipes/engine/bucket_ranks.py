"""Save and load a distributed optimizer of several padded buckets: run by each of two ranks (`bucket_ranks.py FOLDER`)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from megatron_recipes.config import EncoderConfig, EncoderRun
from megatron_recipes.engine.launch import rank_from_environment
from megatron_recipes.engine.parallel import parallel_state
from megatron_recipes.recipes import find_recipe

SHAPE = EncoderConfig(3, 72, 104, 6, 1000, 64)  # widths that do not divide by 128, as SmolLM2's 576


def train(training: Any, steps: range) -> None:
    from megatron_recipes.engine.setup import set_rates

    for step in steps:
        set_rates(training, 1e-3)
        ids = torch.arange(32).view(1, 32) * (step + 3) % 1000
        training.wrapped.zero_grad_buffer()
        training.optimizer.zero_grad()
        training.wrapped(ids, labels=ids).sum().backward()
        training.wrapped.finish_grad_sync()
        training.optimizer.step()


def weights(training: Any) -> dict[str, torch.Tensor]:
    training.wrapped.start_param_sync(force_sync=True)
    return {name: parameter.detach().clone() for name, parameter in training.model.named_parameters()}


def main(folder: Path) -> None:
    place = rank_from_environment()
    recipe = find_recipe("mursit_tiny")()
    assert place is not None and isinstance(recipe, EncoderRun)
    config = replace(recipe, model=SHAPE, precision="bf16")
    with parallel_state(place, config.parallel, seed=0):
        from megatron_recipes.engine import checkpoint
        from megatron_recipes.engine.setup import build_training
        from megatron_recipes.engine.tasks.masked import build_encoder

        def fresh() -> Any:
            return build_training(config, build_encoder(config), bucket_size=20_000)

        training = fresh()
        buckets = training.wrapped.buffers[0].buckets
        assert len(buckets) > 2 and any(b.grad_data.numel() > b.numel_unpadded for b in buckets[:-1]), "nothing to show"
        train(training, range(2))
        training.wrapped.start_param_sync(force_sync=True)
        meta = checkpoint.CheckpointMeta(2, 0, SHAPE, "bf16", "", checkpoint.layout(), {}, "")
        saved = checkpoint.save(folder / "step_0000002", meta, training.model, training.optimizer, folder)
        again = fresh()
        checkpoint.load(saved, again.model, again.optimizer)
        train(training, range(2, 4))
        train(again, range(2, 4))
        found = weights(again)
        for name, expected in weights(training).items():
            assert torch.equal(found[name], expected), f"{name} differs after two more steps"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
