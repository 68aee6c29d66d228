"""Slurm's commands, for those who submit jobs and look at them."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable

from mecellem.errors import UserError

CLIENT_SECONDS = 60  # Slurm's commands wait for ever for a controller that is away
ACCOUNTING_SECONDS = 20  # what sacct tells can be done without
STATES = "PENDING,RUNNING,SUSPENDED,CONFIGURING,COMPLETING,REQUEUED,REQUEUE_HOLD,RESIZING,SIGNALING,STAGE_OUT,STOPPED"


def ask(*words: str, env: dict[str, str] | None = None, seconds: float | None = None) -> str:
    """What one of Slurm's commands prints. Raises `UserError` where there is none, or it refuses."""
    seconds = seconds or CLIENT_SECONDS
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=seconds, env=None if env is None else {**os.environ, **env}
        )
    except FileNotFoundError:
        raise UserError(f"there is no program {words[0]}: run this on a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} got no answer in {seconds} s: is Slurm's controller running?") from None
    if done.returncode:
        raise UserError(f"{shlex.join(words)}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def jobs_under_way() -> set[str]:
    """Numbers of this user's jobs of which any task waits or runs. (squeue refuses a number that Slurm has forgotten.)"""
    return set(ask("squeue", "--me", "--noheader", f"--states={STATES}", "--format=%F").split())


def under_way(job: str) -> bool:
    """Whether any task of a job waits or runs."""
    return job in jobs_under_way()


def task_states() -> dict[str, list[str]]:
    """Number of a job -> the state of every task that Slurm still knows, `PENDING (Resources)` or `FAILED`, of this user."""
    found: dict[str, list[str]] = {}
    for line in ask("squeue", "--me", "--array", "--noheader", "--states=all", "--format=%F %T %r").splitlines():
        job, state, *reason = line.split(maxsplit=2)
        found.setdefault(job, []).append(f"{state} ({reason[0]})" if state == "PENDING" and reason else state)
    return found


def accounted_states(jobs: Iterable[str]) -> dict[str, list[str]]:
    """The same of jobs that squeue has forgotten, from Slurm's accounting; nothing where that is silent."""
    words = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(jobs)}", "--format=JobID,State"]
    try:
        told = ask(*words, seconds=ACCOUNTING_SECONDS)
    except UserError:
        return {}
    found: dict[str, list[str]] = {}
    for line in told.splitlines():
        job, _, state = line.partition("|")
        if state:
            found.setdefault(job.partition("_")[0], []).append(state.split()[0])  # 7_3|CANCELLED by 0
    return found


def of_cpus(site: dict[str, str]) -> dict[str, str]:
    """A site for jobs that need no GPU: its CPU_PARTITION and CPU_QOS, where given, in place of PARTITION and QOS."""
    return site | {key: value for key in ("PARTITION", "QOS") if (value := site.get(f"CPU_{key}"))}
