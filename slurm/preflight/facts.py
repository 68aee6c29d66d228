"""What one rank finds out about its node by itself.

A rank writes its file as soon as it has looked around, before it touches a GPU, and again after everything that it measured:
what is missing or says `error` tells which node is at fault. `together.py` has what ranks do with each other.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import statistics
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mecellem.doctor import installed, output_of
from mecellem.files import atomic_write

PACKAGES = ("mecellem", "torch", "megatron-core", "transformers", "transformer-engine", "flash-attn", "numpy")
QUERY = "name,driver_version,memory.total,ecc.errors.uncorrected.volatile.total"
WRITE_BYTES = 256 << 20
REPEATS = 5
MATMUL = {"cuda": 8192, "cpu": 1024}  # a side of the square matrices

# Xids that mean the GPU, its memory or its links, not the application (13, 31, 43, ...), after NVIDIA's catalogue:
# https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
HARDWARE_XIDS = {
    48: "uncorrectable memory error",
    63: "a row of memory remapped or a page retired",
    64: "remapping or retiring failed",
    74: "NVLink error",
    79: "the GPU fell off the bus",
    92: "many correctable memory errors",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "the GPU's system processor does not answer",
    120: "error of the GPU's system processor",
    121: "error of the link between GPU and CPU",
    140: "unrecovered memory error",
    143: "the GPU did not start",
}
XID = re.compile(r"NVRM: Xid \([^)]*\): (\d+)")
SINCE_BOOT = re.compile(r"\[\s*(\d+)\.\d+\]")  # seconds, as the kernel stamps its messages
XID_DAYS = 7  # older ones say little: what lasts shows in the counters of memory errors too

Stage = Literal["started", "alone", "met", "node", "all"]
STAGES: tuple[Stage, ...] = ("started", "alone", "met", "node", "all")


class Gpu(BaseModel):
    """One GPU as nvidia-smi describes it; memory in MiB, `ecc` uncorrected errors since the driver was loaded."""

    model_config = ConfigDict(frozen=True)

    name: str
    driver: str
    memory: str
    ecc: str


class Facts(BaseModel):
    """One rank's. Speeds: `matmul` in TFLOP/s, `write` in MB/s (first rank of a node), `all_reduce*` in GB/s of bus bandwidth.

    `stage`: what it finished last: looked around, measured by itself, met the others, all-reduced within the node, over all
    nodes. `error`: what ended it there. `xid`: faults of GPUs in the kernel's messages, None where those are closed to users.
    `offset`: seconds that the node's clock is ahead of the first rank's.
    """

    model_config = ConfigDict(frozen=True)

    rank: int
    node: str
    wanted_gpus: int
    gpus: list[Gpu]
    xid: list[str] | None
    versions: dict[str, str]
    stage: Stage = "started"
    error: str | None = None
    device: str | None = None
    matmul: float | None = None
    write: float | None = None
    free_gb: float | None = None
    offset: float | None = None
    all_reduce: float | None = None
    all_reduce_node: float | None = None

    def after(self, stage: Stage) -> bool:
        """Whether it finished that stage."""
        return STAGES.index(self.stage) >= STAGES.index(stage)


def node_name() -> str:
    """As Slurm calls this node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def list_gpus() -> list[Gpu]:
    """The node's GPUs, none where there is no nvidia-smi."""
    lines = (output_of("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader") or "").splitlines()
    rows = [[word.strip() for word in line.split(",")] for line in lines if line.strip()]
    return [Gpu(name=row[0], driver=row[1], memory=row[2], ecc=row[3]) for row in rows if len(row) == 4]


def seconds_since_boot() -> float:
    """As the kernel counts them."""
    return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])


def list_xid() -> list[str] | None:
    """The kernel's newest three messages of hardware faults of GPUs; None where users may not read its messages."""
    text = output_of("dmesg")
    if text is None:
        return None
    oldest = seconds_since_boot() - XID_DAYS * 86_400
    found = []
    for line in text.splitlines():
        match, stamp = XID.search(line), SINCE_BOOT.match(line)
        if match and int(match[1]) in HARDWARE_XIDS and (stamp is None or int(stamp[1]) > oldest):
            found.append(f"{line.strip()} ({HARDWARE_XIDS[int(match[1])]})")
    return found[-3:]


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


def look_around(rank: int) -> Facts:
    """What needs neither torch nor a GPU that works."""
    return Facts(
        rank=rank,
        node=node_name(),
        wanted_gpus=int(os.environ.get("SLURM_GPUS_ON_NODE") or 0),
        gpus=list_gpus(),
        xid=list_xid(),
        versions=list_versions(),
    )


def measure_alone(facts: Facts, local_rank: int, folder: Path) -> Facts:
    """Everything that needs no other rank; `folder` is on the file system that runs will be written to."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    found = {"stage": "alone", "device": device, "matmul": matmul_speed(device)}
    if local_rank == 0:
        found |= {"write": write_speed(folder), "free_gb": shutil.disk_usage(folder).free / 1e9}
    return facts.model_copy(update=found)


def write_facts(folder: Path, facts: Facts) -> None:
    """For the judge."""
    with atomic_write(folder / f"rank_{facts.rank:05d}.json") as handle:
        handle.write(facts.model_dump_json() + "\n")


def read_facts(folder: Path) -> list[Facts]:
    """Of all ranks that wrote any, in order."""
    return [Facts.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("rank_*.json"))]
