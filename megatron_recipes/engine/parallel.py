"""Process groups: torch.distributed and Megatron-Core's parallel state for one layout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from megatron_recipes.config import ParallelConfig
from megatron_recipes.engine import runtime
from megatron_recipes.engine.launch import Rank, end_with_launcher

# A hang shows as an error instead of for ever. Under Slurm the watchdog of slurm/restarts.sh comes first, which knows the
# node: its HANG_SECONDS is to be well below this, or the ranks that wait abort before it has seen which of them are silent.
TIMEOUT = timedelta(hours=1)


@contextmanager
def parallel_state(place: Rank, layout: ParallelConfig, seed: int) -> Iterator[None]:
    """Initialise the process group and Megatron-Core's groups for the time of the block."""
    end_with_launcher()
    runtime.install()
    from megatron.core import parallel_state as mpu
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    if runtime.has_cuda():
        torch.cuda.set_device(place.local_rank)
    else:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    dist.init_process_group(
        runtime.backend(),
        init_method=f"file://{place.store}" if place.store else "env://",
        rank=place.rank,
        world_size=place.world_size,
        timeout=TIMEOUT,
    )
    try:
        mpu.initialize_model_parallel(
            tensor_model_parallel_size=layout.tensor,
            pipeline_model_parallel_size=layout.pipeline,
            context_parallel_size=layout.context,
        )
        model_parallel_cuda_manual_seed(seed)
        torch.manual_seed(seed)
        yield
    finally:
        mpu.destroy_model_parallel()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def single_process(seed: int = 0) -> Iterator[None]:
    """One rank without a launcher: for conversion and for tests."""
    import tempfile

    with (
        tempfile.TemporaryDirectory(prefix="mecellem-store-") as folder,
        parallel_state(Rank(0, 1, 0, f"{folder}/store"), ParallelConfig(), seed),
    ):
        yield
