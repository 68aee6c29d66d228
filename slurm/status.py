"""`mecellem slurm status`: how far runs and pipelines are, what their jobs are doing, and what went wrong last."""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from mecellem.console import console, human_time
from mecellem.errors import UserError
from mecellem.flags import parse_and_call
from mecellem.slurm_client import accounted_states, task_states

if TYPE_CHECKING:
    from rich.table import Table

RUNS = Path("runs")
RECENT = 20  # steps that the speed is the median of
CLIENT_SECONDS = 20  # Slurm's commands wait for ever for a controller that is away
TAIL = 200_000  # bytes of a job's output that are searched for its last error
TROUBLE = re.compile(r"^mecellem: |Error\b|\berror: |CANCELLED|OOM|oom-kill")
CONSEQUENCE = re.compile(r"srun: |slurmstepd(-\S+)?: |torch\.distributed\.elastic\.")  # launchers, after a rank has ended
ENDED_BADLY = re.compile(r"FAILED|TIMEOUT|OUT_OF_MEMORY|NODE_FAIL|BOOT_FAIL|DEADLINE|CANCELLED|^ended")  # in a stage's state
JOB = re.compile(r"\d+_\d+")  # folder of a job's turn
NO_TROUBLE = re.compile(
    r"^mecellem: (signal|turn|.* is finished$)|\*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT \S+( DUE TO JOB REQUEUE)? \*\*\*"
)


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as its folder shows it, and its newest job as Slurm does.

    `step` of `steps` are done, `tokens_per_second` is that of the last steps, `left` the seconds that the rest takes at it.
    `job` and `restarts` are None where the run was never started by a job; `state` is `UNKNOWN` where Slurm tells nothing.
    `ranks_silent`: seconds since the last sign of life of the rank that is silent longest.
    """

    run: Path
    step: int
    steps: int
    tokens_per_second: float | None
    left: float | None
    checkpoint: str | None
    finished: bool
    job: str | None
    restarts: int | None
    state: str
    ranks: int
    ranks_silent: float | None
    trouble: str | None


def run_state(run: Path) -> RunState:
    """Look at one run. Raises `UserError` for a folder that holds none."""
    from megatron_recipes.run_folder import FINISHED, read_metrics, read_run

    jobs = sorted((path for path in (run / "jobs").glob("*_*") if path.is_dir() and JOB.fullmatch(path.name)), key=_order)
    if not (run / "run.yaml").exists() and jobs:  # submitted, and not begun yet
        steps, lines = 0, []
    else:
        steps, lines = int(read_run(run)["steps"]), [line for line in read_metrics(run) if "loss" in line]
    step = max((int(line["step"]) for line in lines), default=0)
    seconds = [float(line["seconds"]) for line in lines[-RECENT:]]
    speeds = [float(line["tokens_per_second"]) for line in lines[-RECENT:]]
    finished = (run / FINISHED).exists()
    checkpoints = sorted(path.name for path in (run / "checkpoints").glob("step_*"))
    beats = [path.stat().st_mtime for path in (run / "heartbeat").glob("rank_*")]
    number, _, restart = jobs[-1].name.partition("_") if jobs else (None, "", "0")
    return RunState(
        run=run,
        step=step,
        steps=steps,
        tokens_per_second=statistics.median(speeds) if speeds else None,
        left=None if finished or not seconds else statistics.median(seconds) * (steps - step),
        checkpoint=checkpoints[-1] if checkpoints else None,
        finished=finished,
        job=number,
        restarts=int(restart) if jobs else None,
        state=job_state(number) if number else "no job",
        ranks=len(beats),
        ranks_silent=time.time() - min(beats) if beats else None,
        trouble=last_trouble(jobs[-1]) if jobs else None,
    )


def _order(job: Path) -> tuple[int, int]:
    number, _, restart = job.name.partition("_")
    return int(number), int(restart)


def job_state(number: str) -> str:
    """What the queue says of a job, with the reason of one that waits; UNKNOWN where it says nothing."""
    command = ["squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T %r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CLIENT_SECONDS)
    except FileNotFoundError:
        return "UNKNOWN (no squeue here)"
    except subprocess.TimeoutExpired:
        return "UNKNOWN (the controller does not answer)"
    state, _, reason = done.stdout.strip().partition(" ")
    if not state:
        return accounted_states([number]).get(number, ["UNKNOWN (Slurm has forgotten it)"])[-1]
    return f"{state} ({reason})" if state == "PENDING" else state


def last_trouble(job: Path) -> str | None:
    """The last line of the job's output that tells of trouble, a rank's own rather than Slurm's; None where there is none."""
    record = job / "job.txt"
    found = re.search(r"^\s*StdOut=(.+)$", record.read_text(encoding="utf-8"), re.MULTILINE) if record.exists() else None
    return trouble_in(Path(found[1])) if found else None


def trouble_in(output: Path) -> str | None:
    """The same of the output itself."""
    if not output.is_file():
        return None
    with output.open("rb") as handle:
        handle.seek(0, 2)
        handle.seek(max(0, handle.tell() - TAIL))
        lines = handle.read().decode("utf-8", errors="replace").splitlines()
    told = [line.strip() for line in lines if TROUBLE.search(line) and not NO_TROUBLE.search(line)]
    causes = [line for line in told if not CONSEQUENCE.match(line)]
    return next(reversed(causes or told), None)


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The runs that are named, or those below a folder that is none itself. Raises `UserError` where there is none."""
    found: list[Path] = []
    for folder in folders:
        if folder == RUNS and not folder.exists():
            raise UserError(
                f"no run has begun, as there is no folder {RUNS}: `mecellem slurm status pipeline.yaml` shows jobs that wait"
            )
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: name a run, or a folder of runs")
        if (folder / "run.yaml").exists() or (folder / "jobs").is_dir():
            found.append(folder)
            continue
        below = sorted(path for path in folder.iterdir() if (path / "run.yaml").exists() or (path / "jobs").is_dir())
        if not below:
            raise UserError(f"{folder} is no run and holds none: give the --out folder of `mecellem train`")
        found += below
    return found


def table_of(states: Sequence[RunState]) -> Table:
    """A line a run."""
    from rich.table import Table

    table = Table("run", "step", "tokens/s", "left", "newest checkpoint", "job", "restarts", "state", "ranks")
    for item in states:
        silent = "" if item.ranks_silent is None else f", silent for {human_time(item.ranks_silent)} at most"
        table.add_row(
            str(item.run),
            f"{item.step:,} of {item.steps:,}" if item.steps else "not begun",
            "-" if item.tokens_per_second is None else f"{item.tokens_per_second:,.0f}",
            "finished" if item.finished else "-" if item.left is None else human_time(item.left),
            item.checkpoint or "-",
            item.job or "-",
            "-" if item.restarts is None else str(item.restarts),
            item.state,
            f"{item.ranks}{silent}" if item.ranks else "-",
        )
    return table


def stage_lines(pipeline: Path) -> list[tuple[str, str, str, str]]:
    """Name, job, state and tasks of every stage of a pipeline.yaml. Raises `UserError` for a file that is none."""
    from slurm.pipeline import read_pipeline
    from slurm.submit import JOBS, jobs_folder, read_jobs, tasks_left

    steps, folder = read_pipeline(pipeline), jobs_folder(pipeline)
    jobs = read_jobs(folder / JOBS)
    left = {step.stage.name: len(tasks_left(folder, step)) for step in steps}
    try:
        known = task_states() if any(left[name] for name in left.keys() & jobs) else {}
    except UserError as error:  # the marks tell without Slurm, too
        known = {job["job"]: [f"UNKNOWN ({error})"] for job in jobs.values()}
    if forgotten := [job["job"] for name, job in jobs.items() if left.get(name) and job["job"] not in known]:
        known |= accounted_states(forgotten)
    lines = []
    for step in steps:
        name, size, job = step.stage.name, len(step.stage.indices), jobs.get(step.stage.name)
        state = "done" if not left[name] else "not submitted" if job is None else counted(known.get(job["job"], []))
        if left[name] and job and job["digest"] != step.digest:
            state += ", with older settings"
        lines.append((name, job["job"] if job else "-", state, f"{size - left[name]:,} of {size:,} done"))
    return lines


def stage_troubles(pipeline: Path, lines: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """`NAME (OUTPUT): LINE` for every stage whose job, or a task of it, ended badly and left a line that tells why."""
    from slurm.pipeline import read_pipeline
    from slurm.submit import jobs_folder, output_record, tasks_left

    found, folder = [], jobs_folder(pipeline)
    for step, (name, job, state, _) in zip(read_pipeline(pipeline), lines, strict=True):
        if not ENDED_BADLY.search(state):
            continue
        records = [output_record(folder, job, task) for task in tasks_left(folder, step)]
        outputs = [Path(path.read_text(encoding="utf-8").rstrip("\n")) for path in records if path.exists()]
        # the one that has been silent longest: others may still be running
        for output in sorted(filter(Path.is_file, outputs), key=lambda path: path.stat().st_mtime):
            if trouble := trouble_in(output):
                found.append(f"{name} ({output}): {trouble}")
                break
    return found


def counted(states: Sequence[str]) -> str:
    """`RUNNING`, or for several tasks `2 RUNNING, 6 PENDING (Resources)`; `states` is empty for a job that is forgotten."""
    if not states:
        return "ended: submit goes on with what is left"
    if len(states) == 1:
        return states[0]
    return ", ".join(f"{count} {state}" for state, count in Counter(states).most_common())


def stage_table(pipeline: Path, lines: Sequence[tuple[str, str, str, str]]) -> Table:
    """A line a stage."""
    from rich.table import Table

    table = Table("stage", "job", "state", "tasks", title=str(pipeline), title_justify="left")
    for line in lines:
        table.add_row(*line)
    return table


def status(runs: tyro.conf.Positional[tuple[Path, ...]] = (RUNS,)) -> None:
    """How far runs are, what their jobs do, and the last error that a job printed.

    Args:
        runs: folders of runs, folders that hold some, or YAML files of pipelines, for a line about each stage
    """
    pipelines = [path for path in runs if path.suffix in (".yaml", ".yml")]
    folders = [path for path in runs if path not in pipelines]
    stages = {path: stage_lines(path) for path in pipelines}
    tables = [stage_table(path, lines) for path, lines in stages.items()]
    states = [run_state(run) for run in find_runs(folders)]
    if states:
        tables.append(table_of(states))
    out = console()
    for table in tables:
        out.print(table)
    for path, lines in stages.items():
        for line in stage_troubles(path, lines):
            out.print(line, markup=False)
    for item in states:
        if item.trouble and not item.finished:
            out.print(f"{item.run}: {item.trouble}", markup=False)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem slurm status`."""
    parse_and_call(status, argv, prog="mecellem slurm status")
    return 0
