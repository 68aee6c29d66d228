"""The run: resume, train, validate, save, stop cleanly. One function, read from top to bottom."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist

from mecellem.console import console
from mecellem.errors import UserError
from megatron_recipes import run_folder
from megatron_recipes.config import RunConfig
from megatron_recipes.engine import checkpoint, heartbeat, runtime
from megatron_recipes.engine.launch import Rank
from megatron_recipes.engine.metrics import Metrics
from megatron_recipes.engine.setup import Training, build_training
from megatron_recipes.engine.step import StepResult, learning_rate, train_step, validate
from megatron_recipes.engine.stop import StopSignal
from megatron_recipes.engine.tasks import Task
from megatron_recipes.models.init import initial_weights
from megatron_recipes.retention import remove_old


def train(config: RunConfig, task: Task, run: Path, place: Rank, tokenizer_sha256: str, stop: StopSignal) -> int:
    """Train `config` in folder `run` from its newest checkpoint, or from the start. Returns the last step done.

    All ranks call it inside `engine.parallel.parallel_state`. A `stop` that came before the first step changes nothing in
    the run. Raises `UserError` for a loss that is not finite and for a full disk.
    """
    main = place.rank == 0
    if main:
        checkpoint.remove_unfinished(run)
        heartbeat.clear(run)
        run_folder.unfinish(run)
    dist.barrier()
    training = build_training(config, task.build_model())
    done = _resume(run, task, training)
    if done == 0:
        set_start(config, training)
    if _any_rank(bool(stop.received)):
        return done
    with ExitStack() as stack:
        alive = stack.enter_context(heartbeat.Heartbeat(run, place.rank))
        metrics = None
        if main:
            metrics = stack.enter_context(Metrics(run, done, task.steps, task.tokens_after))
        for step in range(done + 1, task.steps + 1):
            alive.enter(step)
            started = time.perf_counter()
            result = train_step(task, training, step, bool(stop.received))
            seconds = time.perf_counter() - started
            _require_finite(result, step)
            last = step == task.steps
            if metrics:
                values = {
                    "loss": result.loss,
                    "lr": learning_rate(training),
                    "grad_norm": result.grad_norm,
                    task.counted: result.loss_tokens,
                    "seconds": seconds,
                    "tokens_per_second": task.shape(step).tokens / seconds,
                }
                metrics.train(step, values, write=last or step % config.log_interval == 0, stage=task.stage(step))
            if last or step % config.validation_interval == 0:
                values = validate(task, training, step)
                if metrics:
                    metrics.validate(step, values)
            if last or result.stop or step % config.checkpoint_interval == 0:
                _save(config, task, run, training, step, tokenizer_sha256)
            done = step
            if result.stop:
                break
    if main and done == task.steps:
        run_folder.finish(run, done, task.tokens_after(done))
    return done


def _any_rank(wish: bool) -> bool:
    """Whether any rank has the wish: all must leave, or the others would wait for it in their first collective call."""
    votes = torch.tensor(float(wish), device=runtime.device())
    dist.all_reduce(votes)
    return bool(votes > 0)


def _require_finite(result: StepResult, step: int) -> None:
    if not math.isfinite(result.loss) or not math.isfinite(result.grad_norm):
        raise UserError(
            f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}: training diverged; lower the peak learning "
            "rate or lengthen the warm-up and start again in another --out"
        )


def _save(config: RunConfig, task: Task, run: Path, training: Training, step: int, tokenizer_sha256: str) -> None:
    """Write the checkpoint of `step`, all ranks together, and let `latest` name it."""
    meta = checkpoint.CheckpointMeta(
        step=step,
        tokens=task.tokens_after(step),
        model=task.model_at(step),
        precision=config.precision,
        tokenizer_sha256=tokenizer_sha256,
        layout=checkpoint.layout(),
        versions=checkpoint.versions(),
        name=config.name,
        cursor=task.cursor(),
    )
    if config.optimizer.distributed:  # each rank updated its part only; the next forward pass would gather the others'
        training.wrapped.start_param_sync(force_sync=True)
    folder = checkpoint.save(checkpoint.step_folder(run, step), meta, training.model, training.optimizer, config.data.tokenizer)
    if dist.get_rank() == 0:
        checkpoint.point_latest(run, folder)
        if config.keep_checkpoints:
            _remove_old(run, config.keep_checkpoints)


def _remove_old(run: Path, newest: int) -> None:
    """Retention. Training does not end for a `keep.json` that somebody broke: then all checkpoints stay."""
    try:
        remove_old(run, newest)
    except UserError as error:
        console().print(f"no checkpoint was removed: {error}", markup=False)


def _resume(run: Path, task: Task, training: Training) -> int:
    """Load the newest whole checkpoint of the run, if there is one; returns its step."""
    choice: list[tuple[Path | None, list[str]]] = [(None, [])]
    if dist.get_rank() == 0:
        choice = [checkpoint.newest_whole(run)]
        for fault in choice[0][1]:
            console().print(f"skipped a damaged checkpoint: {fault}", markup=False)
    dist.broadcast_object_list(choice)  # one choice for all ranks, whatever their view of a shared disk
    newest = choice[0][0]
    if newest is None:
        return 0
    meta = checkpoint.load(newest, training.model, training.optimizer)
    task.restore(meta.cursor, meta.step)
    if dist.get_rank() == 0:
        left = "" if meta.step < task.steps else ": nothing is left to train"
        console().print(f"resumed at step {meta.step} of {task.steps}{left}", markup=False)
    return meta.step


def set_start(config: RunConfig, training: Training) -> None:
    """The weights that a new run begins with: of `--init-from` and nothing else of it, else those that the seed gives.

    The optimizer has copied its FP32 master weights from the parameters as they were built. They are set from what was
    read or drawn, not from the parameters: those of `--fp8.param-gather` have rounded it to FP8.
    """
    if config.init_from is not None:
        weights = checkpoint.load_weights(config.init_from, training.model)
    elif config.fp8.param_gather:
        weights = dict(initial_weights(training.model, config.seed))
    else:
        return  # the parameters are exact, and so is the optimizer's copy
    # without the distributed optimizer, which FP8 parameters need, Megatron-Core takes them from the parameters only
    training.optimizer.reload_model_params(weights if config.optimizer.distributed else None)
