"""What is learned, apart from how: a run's kind (masked or causal language modelling) as the training step sees it."""

from __future__ import annotations

from megatron_recipes.config import DecoderRun, EncoderRun, RunConfig
from megatron_recipes.engine.tasks.task import StepShape, Task

__all__ = ["StepShape", "Task", "open_task"]


def open_task(config: RunConfig, verify: bool) -> Task:
    """The task of a run with its data opened and checked. `verify` reads every byte against the manifests' hashes.

    Imports no torch, so that a run's inputs are refused before anything heavy starts. Raises `UserError`.
    """
    if isinstance(config, EncoderRun):
        from megatron_recipes.engine.tasks.masked import MaskedTask

        return MaskedTask(config, verify)
    assert isinstance(config, DecoderRun)
    from megatron_recipes.engine.tasks.causal import CausalTask

    return CausalTask(config, verify)
