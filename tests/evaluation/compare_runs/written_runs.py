"""Run folders as training writes them: `metrics.jsonl` by the real `Metrics`, `run.yaml` with its keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

TOKENS = 4096
STEPS = 400


def settings(**changes: Any) -> dict[str, Any]:
    """`run.yaml` of a run in BF16; `changes` by dotted name, with `__` for the dots."""
    values: dict[str, Any] = {
        "config": {
            "name": "mursit_tiny",
            "precision": "bf16",
            "layer_spec": "auto",
            "fp8": {"emulate": False, "first_last_layers_bf16": True},
            "parallel": {"tensor": 1, "pipeline": 1},
            "optimizer": {"lr": 5e-4, "distributed": True},
            "schedule": {"warmup_tokens": 40 * TOKENS, "micro_batch_size": 4},
            "data": {"train": "corpus/train", "validation": "corpus/validation", "tokenizer": "tokenizer"},
            "seed": 1234,
        },
        "origins": {},
        "tokenizer_sha256": "ab" * 32,
        "world_size": 1,
        "steps": STEPS,
        "tokens_per_step": TOKENS,
        "versions": {"torch": "2.13.0"},
        "machine": {"host": "one"},
    }
    for name, value in changes.items():
        node: Any = values
        *parents, last = name.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    return values


def curves(steps: int = STEPS, seed: int = 7, own: float = 0.003) -> tuple[np.ndarray, np.ndarray]:
    """Losses and gradient norms `[steps]`: the batches' noise is common to all seeds, `own` is a run's own."""
    time = np.arange(1, steps + 1)
    batches, run = np.random.default_rng(0), np.random.default_rng(seed)
    losses = 2.6 + 6.5 * np.exp(-time / 50) + batches.normal(0, 0.06, steps) + run.normal(0, own, steps)
    norms = (0.4 + 4 / np.sqrt(time)) * batches.lognormal(0, 0.1, steps) * run.lognormal(0, 0.02, steps)
    return losses, norms


def write_run(
    folder: Path, losses: Sequence[float], norms: Sequence[float], validation: float | None = None, **changes: Any
) -> Path:
    """A run folder with these figures; `validation` is the loss after the last step."""
    from megatron_recipes.engine.metrics import Metrics

    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings(**changes)), encoding="utf-8")
    with Metrics(folder, 0, len(losses), lambda step: step * TOKENS) as metrics:
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1):
            values = {"loss": float(loss), "lr": 5e-4, "grad_norm": float(norm), "seconds": 1.0, "tokens_per_second": 4096.0}
            metrics.train(step, values, write=True)
        if validation is not None:
            metrics.validate(len(losses), {"validation_loss": validation, "validation_tokens": 1000})
    return folder
