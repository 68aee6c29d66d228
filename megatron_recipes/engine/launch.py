"""Start the ranks of a run on this machine, or join those that torchrun or srun started.

torchrun's agent turns SIGTERM into an error and kills its workers after 30 s; a run must be able to save and leave with
exit code 0, and a failed rank must not leave its siblings waiting in a collective. Hence this small launcher; under
torchrun and srun it steps aside.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mecellem.errors import UserError

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0  # a sibling of a failed rank may be inside a collective, from which it never returns


@dataclass(frozen=True, slots=True)
class Rank:
    """This process's place in the run. `store` is a file for the rendezvous, or None for MASTER_ADDR:MASTER_PORT."""

    rank: int
    world_size: int
    local_rank: int
    store: str | None


def rank_from_environment(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """The rank that our launcher, torchrun or srun gave this process; None when nobody did.

    An `srun` of one task per node whose tasks call torchrun is torchrun's. Raises `UserError` for a Slurm step of many
    tasks without MASTER_ADDR and MASTER_PORT.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return Rank(
            int(environment["RANK"]),
            int(environment["WORLD_SIZE"]),
            int(environment.get("LOCAL_RANK", "0")),
            environment.get("MECELLEM_STORE"),
        )
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and "SLURM_PROCID" in environment:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in environment:
                raise UserError(
                    f"{name} is not set: under srun export MASTER_ADDR (the first node of "
                    "`scontrol show hostnames $SLURM_JOB_NODELIST`) and MASTER_PORT before the srun line"
                )
        return Rank(int(environment["SLURM_PROCID"]), tasks, int(environment.get("SLURM_LOCALID", "0")), None)
    return None


def threads_per_rank(ranks: int) -> int:
    """CPU threads for each of `ranks` processes on this machine."""
    return max(1, len(os.sched_getaffinity(0)) // ranks)


def start_ranks(command: Sequence[str], ranks: int) -> int:
    """Run `command` once per rank and wait; returns 0, or the first failing rank's exit code.

    SIGTERM and SIGINT are passed on, so that the ranks save and leave; when one rank fails the others are ended.
    """
    with tempfile.TemporaryDirectory(prefix="mecellem-store-") as folder:
        processes = []
        for rank in range(ranks):
            environment = {
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks),
                "MECELLEM_STORE": str(Path(folder) / "store"),
                "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads_per_rank(ranks))),
            }
            # one sentence, not one per rank: the others' words are kept and shown if rank 0 had nothing to say
            with open(_errors_file(folder, rank), "wb") as errors:
                processes.append(subprocess.Popen(list(command), env=environment, stderr=errors if rank else None))
        code = _wait(processes)
        if code != 0 and processes[0].returncode != 2:
            for rank in range(1, ranks):
                sys.stderr.write(_errors_file(folder, rank).read_text(encoding="utf-8", errors="replace"))
        return code


def _errors_file(folder: str, rank: int) -> Path:
    return Path(folder) / f"stderr_{rank}"


def _wait(processes: list[subprocess.Popen[bytes]]) -> int:
    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while True:
            codes = [process.poll() for process in processes]
            failed = [code for code in codes if code not in (None, 0)]
            if failed:
                _end([process for process in processes if process.poll() is None])
                # a rank that could name the cause exits with 2; one torn down by its neighbour's death does not
                codes = [process.poll() for process in processes]
                return 2 if 2 in codes else _exit_code(failed[0] or 1)
            if all(code == 0 for code in codes):
                return 0
            time.sleep(POLL_SECONDS)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _end([process for process in processes if process.poll() is None])


def _exit_code(code: int) -> int:
    return code if code > 0 else 128 - code  # killed by signal n: 128 + n, as a shell says it


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Give ranks a moment to fail by themselves (they may print the cause), then kill what is left."""
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if process.poll() is None:
            process.kill()
            process.wait()


def python_command(module: str, arguments: Sequence[str]) -> list[str]:
    """`python -m module arguments`, with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
