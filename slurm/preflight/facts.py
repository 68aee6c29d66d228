"""What one rank finds out about its node: by itself first, then together with the others.

Each rank writes its file before it waits for anybody, so a node that cannot be reached is one whose ranks wrote nothing
more, and a node that does not even start is one without files.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import statistics
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mecellem.doctor import installed, output_of
from mecellem.files import atomic_write

PACKAGES = ("mecellem", "torch", "megatron-core", "transformers", "transformer-engine", "flash-attn", "numpy")
QUERY = "name,driver_version,memory.total,ecc.errors.uncorrected.volatile.total"
WRITE_BYTES = 256 << 20
REPEATS = 5
MATMUL = {"cuda": 8192, "cpu": 1024}  # a side of the square matrices
MESSAGE_BYTES = {"cuda": 1 << 28, "cpu": 1 << 24}  # of an all-reduce


class Gpu(BaseModel):
    """One GPU as nvidia-smi describes it; memory in MiB, `ecc` uncorrected errors since the driver was loaded."""

    model_config = ConfigDict(frozen=True)

    name: str
    driver: str
    memory: str
    ecc: str


class Facts(BaseModel):
    """One rank's. Speeds: `matmul` in TFLOP/s, `write` in MB/s (first rank of a node), `all_reduce*` in GB/s of bus bandwidth.

    `offset`: seconds that the node's clock is ahead of rank 0's. `together` is None for a rank that never got that far.
    """

    model_config = ConfigDict(frozen=True)

    rank: int
    node: str
    wanted_gpus: int
    gpus: list[Gpu]
    xid: list[str]
    versions: dict[str, str]
    device: str
    matmul: float
    write: float | None
    free_gb: float | None
    offset: float | None = None
    all_reduce: float | None = None
    all_reduce_node: float | None = None

    @property
    def together(self) -> bool:
        """Whether it reached the end, where all ranks had talked to each other."""
        return self.all_reduce is not None


def node_name() -> str:
    """As Slurm calls this node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def list_gpus() -> list[Gpu]:
    """The node's GPUs, none where there is no nvidia-smi."""
    lines = (output_of("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader") or "").splitlines()
    rows = [[word.strip() for word in line.split(",")] for line in lines if line.strip()]
    return [Gpu(name=row[0], driver=row[1], memory=row[2], ecc=row[3]) for row in rows if len(row) == 4]


def list_xid() -> list[str]:
    """The kernel's messages of GPU errors, where users may read them."""
    return [line.strip() for line in (output_of("dmesg") or "").splitlines() if "NVRM: Xid" in line][-3:]


def list_versions() -> dict[str, str]:
    """Of Python and of the packages that are there."""
    found = {name: installed(name) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: version for name, version in found.items() if version}}


def write_speed(folder: Path) -> float:
    """MB/s of one file written to `folder` and synced."""
    path = folder / f".preflight-{node_name()}-{os.getpid()}"
    block, started = os.urandom(1 << 20), time.perf_counter()
    try:
        with open(path, "wb", buffering=0) as handle:
            for _ in range(WRITE_BYTES >> 20):
                handle.write(block)
            os.fsync(handle.fileno())
        return WRITE_BYTES / 1e6 / (time.perf_counter() - started)
    finally:
        path.unlink(missing_ok=True)


def matmul_speed(device: str) -> float:
    """TFLOP/s of a matrix product in BF16 on a GPU, in FP32 on a CPU; the median of several."""
    import torch

    side, kind = MATMUL[device], torch.bfloat16 if device == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    speeds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        speeds.append(2 * side**3 / (time.perf_counter() - started) / 1e12)
    return statistics.median(speeds[1:])  # the first loads the library


def measure_alone(rank: int, local_rank: int, folder: Path) -> Facts:
    """Everything that needs no other rank; `folder` is on the file system that runs will be written to."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    first = local_rank == 0
    return Facts(
        rank=rank,
        node=node_name(),
        wanted_gpus=int(os.environ.get("SLURM_GPUS_ON_NODE") or 0),
        gpus=list_gpus(),
        xid=list_xid(),
        versions=list_versions(),
        device=device,
        matmul=matmul_speed(device),
        write=write_speed(folder) if first else None,
        free_gb=shutil.disk_usage(folder).free / 1e9 if first else None,
    )


def measure_together(facts: Facts) -> Facts:
    """Clock and all-reduce bandwidth, over all ranks and within each node; the process group is there."""
    import torch.distributed as dist

    nodes: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(nodes, facts.node)
    groups = {node: dist.new_group([rank for rank, name in enumerate(nodes) if name == node]) for node in sorted(set(nodes))}
    dist.barrier()
    clocks: list[float] = [0.0] * dist.get_world_size()
    dist.all_gather_object(clocks, time.time())  # all leave the barrier together, up to the network's delay
    return facts.model_copy(
        update={
            "offset": clocks[facts.rank] - clocks[0],
            "all_reduce_node": all_reduce_speed(facts.device, groups[facts.node], nodes.count(facts.node)),
            "all_reduce": all_reduce_speed(facts.device, None, len(nodes)),
        }
    )


def all_reduce_speed(device: str, group: Any, ranks: int) -> float:
    """Bus bandwidth in GB/s as nccl-tests define it: 2 (n - 1) / n x bytes / seconds; 0 for one rank."""
    import torch
    import torch.distributed as dist

    data = torch.ones(MESSAGE_BYTES[device] // 4, device=device)
    speeds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        dist.all_reduce(data, group=group)
        if device == "cuda":
            torch.cuda.synchronize()
        speeds.append(2 * (ranks - 1) / ranks * MESSAGE_BYTES[device] / (time.perf_counter() - started) / 1e9)
    return statistics.median(speeds[1:])


def write_facts(folder: Path, facts: Facts) -> None:
    """For the judge."""
    with atomic_write(folder / f"rank_{facts.rank:05d}.json") as handle:
        handle.write(facts.model_dump_json() + "\n")


def read_facts(folder: Path) -> list[Facts]:
    """Of all ranks that wrote any, in order."""
    return [Facts.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("rank_*.json"))]
