"""Who runs the tasks of a phase: processes of this machine, or Slurm arrays; both through datatrove's executors."""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import datatrove.executor.slurm
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor

from mecellem.errors import UserError
from mecellem.files import disk_full_cause, disk_full_error
from mecellem.site_file import array_jobs
from mecellem.slurm_client import ask
from preprocessing.pipeline.phases import Phase

_MANY_FILES = "ulimit -n $(ulimit -Hn)"  # searches for duplicates open files of every shard at once
_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
_TRACKER = "ignore:resource_tracker:UserWarning"  # it tells of what it removed, which nobody asked for who pressed Ctrl-C
_AHEAD = 4  # tasks handed to the pool beyond those that run: the pool copies each task's pipeline


class LocalExecutor(LocalPipelineExecutor):
    """datatrove's local executor with a pool that notices killed workers and says nothing on the console.

    datatrove's own pool waits for ever when a worker is killed (by the kernel that is out of memory, say). Pipelines,
    marks of completed tasks, statistics and logs are datatrove's.
    """

    def __init__(self, phase: Phase, logs: Path, workers: int) -> None:
        super().__init__(phase.pipeline, tasks=phase.tasks, workers=min(workers, phase.tasks), logging_dir=str(logs))
        self.logs = logs

    def run_tasks(self, done: Callable[[int], None]) -> None:
        """Run the tasks that are not complete yet; `done` is called with the number of each as it completes.

        Raises what a task raised, and `UserError` when a worker was killed; the tasks beside it are ended at once.
        """
        ranks = iter(self.get_incomplete_ranks())
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            with _pool(self.workers, self.logs / "console.log") as pool:
                self._work_through(pool, ranks, done)
        except BrokenProcessPool:
            raise UserError(
                f"a worker was killed in {self.logs.parent.parent}, most likely for want of memory: "
                "the same command goes on; fewer --workers or a smaller shard_size need less"
            ) from None

    def _work_through(self, pool: ProcessPoolExecutor, ranks: Iterator[int], done: Callable[[int], None]) -> None:
        running: dict[Future[None], int] = {}
        while True:
            for rank in ranks:
                with _uninterrupted():  # a pool that is interrupted while it starts a process cannot be shut down
                    running[pool.submit(_run_task, self, rank)] = rank
                if len(running) >= self.workers + _AHEAD:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                rank = running.pop(future)
                future.result()
                done(rank)


def _run_task(executor: LocalExecutor, rank: int) -> None:
    try:
        executor._run_for_rank(rank, local_rank=1)
    except UserError:
        raise
    except Exception as error:
        full = disk_full_cause(error)
        if full is None:
            raise
        raise disk_full_error(executor.logs.parent.parent, full) from None


def _log_quickly() -> None:
    """Let loguru find the standard library's folders once, and not for every handler.

    datatrove adds three handlers a task, and that search was 17 of the 25 ms that a task took beside its work.
    """
    from loguru._better_exceptions import ExceptionFormatter

    if hasattr(ExceptionFormatter, "_get_lib_dirs"):  # a private name: where it is gone, tasks are slower and nothing else
        found = staticmethod(functools.cache(ExceptionFormatter._get_lib_dirs))
        ExceptionFormatter._get_lib_dirs = found  # type: ignore[method-assign]


_log_quickly()


def quiet() -> None:
    """Keep datatrove's messages off the console of the command itself; workers write theirs into log files."""
    from loguru import logger

    logger.remove()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come inside are acted on at the end."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread is interrupted
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _start_server() -> None:
    """Start the process that workers are forked from, with Ctrl-C blocked in it and so in them: it is the parent's business.

    The workers' own initializer would be too late: a Ctrl-C while they start would leave tracebacks on the console.
    """
    resource_tracker.ensure_running()  # first, for it unblocks what is blocked when it starts
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


@contextmanager
def _pool(workers: int, console: Path) -> Iterator[ProcessPoolExecutor]:
    """Processes that share no state; on Ctrl-C, SIGTERM or an error they are ended at once: no task is half done."""
    if _TRACKER not in sys.warnoptions:  # what the process that tidies up behind ended workers is started with
        sys.warnoptions.append(_TRACKER)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preprocessing.pipeline.executors", "preprocessing.pipeline.read"])
    before = set(multiprocessing.active_children())
    with _uninterrupted():
        _start_server()
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(str(console),))
    try:
        yield pool
        pool.shutdown(wait=True)
    except BaseException:
        with _uninterrupted():
            for child in set(multiprocessing.active_children()) - before:
                child.kill()
            pool.shutdown(wait=True, cancel_futures=True)
        raise


def _start_worker(console: str) -> None:
    """Prepare a worker: what libraries print goes to a file, SIGTERM ends it, and so does the end of its parent."""
    import resource

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    descriptor = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    # as _MANY_FILES does for a job of Slurm's
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """An orphan would go on writing beside the run that follows."""
    parent.join()
    os._exit(1)


def _sbatch(script: str, job_of: Callable[[str], str], *options: str) -> str:
    """Submit a script; the number of the job, as `job_of` finds it in what sbatch prints.

    The options that the script names are also given on the command line: variables such as SBATCH_PARTITION, which a login
    shell may have for training, would win over them.
    """
    named = re.findall(r"^#SBATCH (--.+)$", script, re.MULTILINE)
    with tempfile.NamedTemporaryFile("w", suffix=".slurm") as handle:
        handle.write(script)
        handle.flush()
        return job_of(ask("sbatch", *named, *options, handle.name))


datatrove.executor.slurm.launch_slurm_job = _sbatch  # its own waits for ever for a controller that is away


class SlurmExecutor(SlurmPipelineExecutor):
    """datatrove's Slurm executor: one array a phase of as many jobs as the site takes, each with as many tasks as that needs.

    With several arrays a phase, datatrove lets the next phase wait only for the last of them. `site` is of nodes without GPUs,
    `environment` what leads to mecellem there; memory is asked for where the site names any.
    """

    def __init__(
        self,
        phase: Phase,
        logs: Path,
        name: str,
        site: dict[str, str],
        environment: str,
        depends: SlurmExecutor | None,
        workers: int,
    ) -> None:
        account = {"account": site["ACCOUNT"]} if site.get("ACCOUNT") else {}
        self.memory = site.get("MEM_PER_CPU_GB", "")
        super().__init__(
            phase.pipeline,
            tasks=phase.tasks,
            time=site["TIME"],
            partition=site["PARTITION"],
            cpus_per_task=int(site.get("CPUS_PER_TASK", "1")),
            mem_per_cpu_gb=int(self.memory or 0),
            qos=site.get("QOS", ""),
            workers=workers,
            job_name=name,
            env_command=f"{_MANY_FILES}; {environment}",
            sbatch_args={**account, "kill-on-invalid-dep": "yes"},
            max_array_size=array_jobs(site),
            tasks_per_job=math.ceil(phase.tasks / array_jobs(site)),
            logging_dir=str(logs),
            depends=depends,
            mail_user=site.get("MAIL_USER"),
        )

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """Options of sbatch, without memory where the site names none: some refuse to be asked for any."""
        options = super().get_sbatch_args(max_array)
        return options if self.memory else {name: value for name, value in options.items() if name != "mem-per-cpu"}

    def launch_merge_stats(self) -> None:
        """Not needed: `status` sums ledgers."""
