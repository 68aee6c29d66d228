"""What ranks find out with each other, without those that do not come: a broken node must not hide the rest."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from megatron_recipes.engine import runtime
from megatron_recipes.engine.launch import Rank
from slurm.preflight.facts import REPEATS, Facts

MESSAGE_BYTES = {"cuda": 1 << 28, "cpu": 1 << 24}  # of an all-reduce
POLL_SECONDS = 0.2


@contextmanager
def meeting(place: Rank, ready: bool, wait_seconds: float) -> Iterator[list[int]]:
    """A process group of the ranks that are ready; gives their numbers, in order.

    Rank 0 waits `wait_seconds` for the others, and stays until those that came are done, also where it is not ready itself.
    Raises what torch raises where rank 0 is not reached, and `TimeoutError` for a rank that comes too late.
    """
    limit = timedelta(seconds=wait_seconds)
    store = _store(place, limit)
    store.set(f"rank{place.rank}", "ready" if ready else "failed")
    if place.rank == 0:
        store.set("members", json.dumps(_who_came(store, place.world_size, wait_seconds)))
    store.wait(["members"], 2 * limit)  # rank 0 may have come as late as this rank may
    members: list[int] = json.loads(store.get("members"))
    try:
        if ready and place.rank not in members:
            raise TimeoutError(f"it came when rank 0 had waited {wait_seconds:.0f} s for it")
        if ready:
            dist.init_process_group(
                runtime.backend(),
                store=dist.PrefixStore("members", store),
                rank=members.index(place.rank),
                world_size=len(members),
                timeout=limit,
            )
        yield members
    finally:
        with suppress(RuntimeError):  # the store, or one of the ranks, is gone
            store.set(f"done{place.rank}", "")
            if place.rank == 0:
                store.wait([f"done{rank}" for rank in members], 2 * limit)
    if ready:
        dist.destroy_process_group()


def _store(place: Rank, limit: timedelta) -> dist.Store:
    if place.world_size == 1:
        return dist.HashStore()
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=place.rank == 0, timeout=limit, wait_for_workers=False)


def _who_came(store: dist.Store, ranks: int, wait_seconds: float) -> list[int]:
    """The ranks that are ready, once all have come or the time is over."""
    end = time.monotonic() + wait_seconds
    while not store.check([f"rank{rank}" for rank in range(ranks)]) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    came = [rank for rank in range(ranks) if store.check([f"rank{rank}"])]
    return [rank for rank in came if store.get(f"rank{rank}") == b"ready"]


def measure_in_node(facts: Facts, members: Sequence[int]) -> Facts:
    """Clock and all-reduce bandwidth within each node."""
    nodes: list[str] = [""] * len(members)
    dist.all_gather_object(nodes, facts.node)
    groups = {node: dist.new_group([rank for rank, name in enumerate(nodes) if name == node]) for node in sorted(set(nodes))}
    dist.barrier()
    clocks: list[float] = [0.0] * len(members)
    dist.all_gather_object(clocks, time.time())  # all leave the barrier together, up to the network's delay
    return facts.model_copy(
        update={
            "stage": "node",
            "offset": clocks[members.index(facts.rank)] - clocks[0],
            "all_reduce_node": all_reduce_speed(facts.device or "cpu", groups[facts.node], nodes.count(facts.node)),
        }
    )


def measure_over_all(facts: Facts, members: Sequence[int]) -> Facts:
    """All-reduce bandwidth over all ranks that came."""
    return facts.model_copy(update={"stage": "all", "all_reduce": all_reduce_speed(facts.device or "cpu", None, len(members))})


def all_reduce_speed(device: str, group: Any, ranks: int) -> float:
    """Bus bandwidth in GB/s as nccl-tests define it: 2 (n - 1) / n x bytes / seconds; 0 for one rank."""
    data = torch.ones(MESSAGE_BYTES[device] // 4, device=device)
    speeds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        dist.all_reduce(data, group=group)
        if device == "cuda":
            torch.cuda.synchronize()
        speeds.append(2 * (ranks - 1) / ranks * MESSAGE_BYTES[device] / (time.perf_counter() - started) / 1e9)
    return statistics.median(speeds[1:])
