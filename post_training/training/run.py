"""A training from its arguments to its last step: ranks, seeds, order of sums, signals, and what is left when it ends."""

from __future__ import annotations

import os
import random
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from post_training.model_folder import quiet_transformers
from post_training.training.unfinished import Unfinished

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformerTrainingArguments

    from megatron_recipes.engine.stop import StopSignal
    from post_training.training.trainer import PlannedTrainer, Watch


def join_launcher() -> int:
    """Ranks of this training: those that torchrun or srun started, or this process alone."""
    from megatron_recipes.engine.launch import rank_from_environment

    place = rank_from_environment()
    if place is None or place.world_size == 1:
        return 1
    os.environ.setdefault("RANK", str(place.rank))  # what the trainer's libraries look at, and srun does not set
    os.environ.setdefault("WORLD_SIZE", str(place.world_size))
    os.environ.setdefault("LOCAL_RANK", str(place.local_rank))
    return place.world_size


def check_place(target: Path, device: str, **numbers: int) -> None:
    """Refuse a folder that holds something, a GPU by its number, and negative `numbers`. Raises `UserError`."""
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise UserError(f"{target} exists already (--out): choose another folder or remove it first")
    for name, value in numbers.items():
        if value < 0:
            raise UserError(f"--{name.replace('_', '-')} must be at least 0, not {value}")
    if device.startswith("cuda:") and device != "cuda:0":
        raise UserError(f"--device {device}: set CUDA_VISIBLE_DEVICES={device.removeprefix('cuda:')} and give --device cuda")


def seed_everything(seed: int) -> None:
    """Every random stream that a library may draw from."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """On a GPU, kernels whose sums have a fixed order, where there are such; on CPUs they have one anyway."""
    import torch

    if device == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's condition for it
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def unfinished_kept(unfinished: Unfinished) -> Iterator[None]:
    """However the block ends, only checkpoints with which a training can go on are left."""
    try:
        yield
    finally:
        if os.environ.get("RANK", "0") == "0":
            unfinished.drop_if_empty()


def make_arguments(
    folder: Path, seed: int, device: str, ranks: int, workers: int, **own: Any
) -> SentenceTransformerTrainingArguments:
    """What the library's trainer is told; `own`: of one kind of training.

    Checkpoints are asked for by the `Watch`, so that none is written at the end.
    """
    from sentence_transformers import SentenceTransformerTrainingArguments

    with quiet_transformers():
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            seed=seed,
            data_seed=seed,
            use_cpu=device == "cpu",
            save_strategy="no",
            save_total_limit=2,
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
            dataloader_drop_last=True,
            dataloader_num_workers=workers,
            dataloader_pin_memory=device != "cpu",
            **own,
        )
        if ranks == 1 and arguments.device.type == "cuda":
            arguments._n_gpu = 1  # several visible GPUs are for torchrun: transformers' DataParallel would split batches
    return arguments


@contextmanager
def signals() -> Iterator[StopSignal]:
    """The signal that came, if one came. Python lets only the main thread listen."""
    from megatron_recipes.engine.stop import StopSignal, stop_signals

    in_main_thread = threading.current_thread() is threading.main_thread()
    with stop_signals() if in_main_thread else nullcontext(StopSignal()) as stop:
        yield stop


def run_to_end(trainer: PlannedTrainer, watch: Watch, resume: Path | None) -> None:
    """All steps, from `resume` on if that is given. Raises `SystemExit` (128 + its number) when a signal stopped it."""
    try:
        with quiet_transformers(), warnings.catch_warnings():
            # of torch and accelerate about each other, at every step; models like BERT have weights that pooling never uses
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    finally:
        watch.close()
    if watch.stopped_by:
        raise SystemExit(128 + watch.stopped_by)
