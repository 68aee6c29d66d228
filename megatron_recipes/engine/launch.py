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
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mecellem.errors import UserError
from megatron_recipes.engine.stop import handled_by, held_back

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0  # a sibling of a failed rank may be inside a collective, from which it never returns
LIFELINE = "MECELLEM_LIFELINE"  # file descriptor of a pipe that ends when the launcher does


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


def start_ranks(command: Sequence[str], ranks: int, on_cpu: bool = False, hold_signals: bool = False) -> int:
    """Run `command` once per rank and wait; returns 0, or the exit code of the rank whose failure was the cause.

    With `on_cpu` the ranks see no GPU: there may be more of them than the machine has GPUs. With `hold_signals` they take
    the three signals below only when they enter `engine.stop.stop_signals`.

    SIGTERM, SIGINT and SIGUSR1 are passed on, so that the ranks save and leave; when one rank fails the others are ended,
    and when this process is killed they end too.
    """
    lifeline, held = os.pipe()
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="mecellem-store-") as folder, _forwarding(processes):
        try:
            for rank in range(ranks):
                # one sentence, not one per rank: the others' words are kept and shown if rank 0 had nothing to say
                with open(_errors_file(folder, rank), "wb") as errors, held_back() if hold_signals else nullcontext():
                    processes.append(
                        subprocess.Popen(
                            list(command),
                            env=_rank_environment(rank, ranks, folder, lifeline)
                            | ({"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}),
                            stderr=errors if rank else None,
                            pass_fds=(lifeline,),
                        )
                    )
            culprit, code = _wait(processes)
        finally:
            _end([process for process in processes if process.poll() is None])
            os.close(lifeline)
            os.close(held)
        if code != 0 and processes[0].returncode != 2:
            for rank in range(1, ranks):
                sys.stderr.write(_errors_file(folder, rank).read_text(encoding="utf-8", errors="replace"))
    if code < 0:
        sys.stderr.write(
            f"mecellem: rank {culprit} was killed by signal {-code} ({signal.strsignal(-code)}) and the others were ended "
            "(signal 9 without your doing is usually the machine running out of memory)\n"
        )
    return code if code >= 0 else 128 - code  # killed by signal n: 128 + n, as a shell says it


def _rank_environment(rank: int, ranks: int, folder: str, lifeline: int) -> dict[str, str]:
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MECELLEM_STORE": str(Path(folder) / "store"),
        LIFELINE: str(lifeline),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads_per_rank(ranks))),
    }


def end_with_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """In a rank: die when the launcher is gone, also by SIGKILL. Orphans would write into the run that is started next."""
    if LIFELINE not in environment:
        return

    def watch() -> None:
        os.read(int(environment[LIFELINE]), 1)  # nothing is ever written: it returns when the other end is closed
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


def _errors_file(folder: str, rank: int) -> Path:
    return Path(folder) / f"stderr_{rank}"


@contextmanager
def _forwarding(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass signals on to the processes of a list that may still grow."""

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    with handled_by(forward):
        yield


def _wait(processes: list[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """Wait for all ranks, or for the first failure; returns the rank to blame and its `returncode` (0 for success)."""
    while True:
        codes = [process.poll() for process in processes]
        failed = {rank: code for rank, code in enumerate(codes) if code not in (None, 0)}
        if failed:
            _end([process for process in processes if process.poll() is None])
            # a rank that could name the cause exits with 2; one torn down by its neighbour's death does not
            named = [rank for rank, process in enumerate(processes) if process.returncode == 2]
            killed = [rank for rank, code in failed.items() if code is not None and code < 0]
            culprit = (named or killed or list(failed))[0]
            return culprit, processes[culprit].returncode
        if all(code == 0 for code in codes):
            return 0, 0
        time.sleep(POLL_SECONDS)


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
