"""`mecellem slurm preflight`: submit the job, or be one of its ranks, or judge what the ranks wrote."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mecellem.console import console
from mecellem.errors import UserError
from mecellem.flags import parse_and_call
from mecellem.site_file import read_site, site_options
from mecellem.slurm_client import ask, task_states, under_way
from slurm.preflight.facts import Facts, look_around, measure_alone, read_facts, write_facts
from slurm.preflight.judge import between_nodes, judge, unread

if TYPE_CHECKING:
    from rich.table import Table

    from megatron_recipes.engine.launch import Rank

JOB = Path("slurm/preflight.sbatch")
JUDGED = "judged"  # a mark beside the facts: slurm/preflight.sbatch looks for it, as exit codes of nodes that fail say nothing
POLL_SECONDS = 15.0
NEVER = ("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS")
FIT, UNFIT = "all nodes are fit", "not fit: "


def preflight(
    nodes: int | None = None,
    options: tuple[str, ...] = (),
    site: Path = Path("slurm/cluster.env"),
    need_gb: float = 100.0,
    wait_seconds: float = 120.0,
    measure: Path | None = None,
    judge_facts: Path | None = None,
) -> int:
    """Are nodes of this cluster fit to train? One job; exit code 1 where a node is not, with its name and the reason.

    Every rank looks at its node's GPUs (count, memory errors, Xid), versions, file system and clock, and times matrix
    products, writes and all-reduces. Then the nodes are compared with each other. On nodes without GPUs the same, with gloo.

    Args:
        nodes: how many nodes; the job's file says otherwise (slurm/preflight.sbatch)
        options: more options of sbatch, without the dashes: time=00:05:00 exclude=n3
        site: account, partition and QOS of this cluster
        need_gb: free space that runs need
        wait_seconds: how long ranks wait for those of other nodes, and then measure without them
        measure: for the job itself: be a rank, and write what is found to this folder, which all nodes see
        judge_facts: for the job itself: compare what the ranks wrote there
    """
    if measure is not None and judge_facts is not None:
        raise UserError("--measure is for every rank and --judge-facts for what comes after: give one of them")
    if measure is not None:
        return run_rank(measure, wait_seconds)
    if judge_facts is not None:
        return report(judge_facts, need_gb)
    return submit(nodes, options, site, need_gb, wait_seconds)


def submit(nodes: int | None, options: Sequence[str], site: Path, need_gb: float, wait_seconds: float) -> int:
    """Submit slurm/preflight.sbatch, wait for it, and show what it printed. Raises `UserError` where it gave no verdict."""
    words = site_options(read_site(site))
    words += [f"--nodes={nodes}"] * (nodes is not None) + [f"--{option}" for option in options]
    if not JOB.is_file():
        raise UserError(f"{JOB} is missing: start this from the repository's root")
    output = Path(f"preflight-{os.getpid()}.out").resolve()
    command = ["sbatch", "--parsable", "--export=ALL", *words, f"--output={output}", str(JOB)]
    command += ["--need-gb", str(need_gb), "--wait-seconds", str(wait_seconds)]
    job = ask(*command, env={"MECELLEM_SITE": str(site.resolve())}).partition(";")[0]
    console().print(f"job {job}, its output is {output}; Ctrl-C cancels it", markup=False)
    try:
        wait_for(job)
    except KeyboardInterrupt:
        cancel(job)
        raise
    text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    console().print(text, markup=False)
    if FIT not in text and UNFIT not in text:
        raise UserError(f"job {job} ended without a verdict ({state_of(job)}){f': see {output}' if text else ''}")
    return 0 if FIT in text else 1


def wait_for(job: str) -> None:
    """Until it has ended; says why it does not begin. Raises `UserError` for a reason that time does not mend."""
    told = ""
    while under_way(job):
        time.sleep(POLL_SECONDS)
        state = next(iter(task_states().get(job, [])), "")
        if any(reason in state for reason in NEVER):
            cancel(job)
            raise UserError(
                f"job {job} can never begin, {state}: no nodes of this partition are as {JOB} asks; give other sizes, as "
                "--nodes 2 --options cpus-per-task=8 gpus-per-node=4, or another partition, account or QOS"
            )
        if state.startswith("PENDING") and state != told:
            console().print(f"job {job}: {state}", markup=False)
        told = state


def cancel(job: str) -> None:
    """Take a job back. Raises `UserError` where Slurm does not answer: it is still there then."""
    ask("scancel", job)
    console().print(f"job {job} was cancelled", markup=False)


def state_of(job: str) -> str:
    """`CANCELLED` and the like, as long as Slurm remembers the job."""
    words: list[str] = []
    with suppress(UserError):
        words = ask("scontrol", "show", "job", job).split()
    return next((word.partition("=")[2] for word in words if word.startswith("JobState=")), "state unknown")


@dataclass(slots=True)
class Record:
    """The file of one rank, written anew after every measurement, and after the error that ends it."""

    folder: Path
    facts: Facts

    def add(self, measure: Callable[[Facts], Facts]) -> bool:
        """Measure and write; False where it failed."""
        try:
            self.facts = measure(self.facts)
        except Exception as error:  # whatever it is, it is what this rank found
            self.fail(error)
            return False
        write_facts(self.folder, self.facts)
        return True

    def fail(self, error: Exception) -> None:
        """Write the reason, and print it to the job's output."""
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        self.facts = self.facts.model_copy(update={"error": said})
        print(f"mecellem: rank {self.facts.rank} on {self.facts.node}: {said}", file=sys.stderr)
        write_facts(self.folder, self.facts)


def make(folder: Path) -> None:
    """Make the folder of the facts. Raises `UserError` where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made ({error.strerror}): set FOLDER= to a folder that all nodes may write to"
        ) from None


def run_rank(folder: Path, wait_seconds: float) -> int:
    """One rank, started by srun; 1 where it did not come to the end."""
    from megatron_recipes.engine.launch import Rank, rank_from_environment

    place = rank_from_environment() or Rank(0, 1, 0, None)
    make(folder)
    record = Record(folder, look_around(place.rank))
    write_facts(folder, record.facts)
    ready = record.add(lambda facts: measure_alone(facts, place.local_rank, folder))
    try:
        return 0 if with_others(record, place, ready, wait_seconds) else 1
    except Exception as error:
        if ready:  # else the reason is written already
            record.fail(error)
        return 1


def with_others(record: Record, place: Rank, ready: bool, wait_seconds: float) -> bool:
    """Meet the ranks of all nodes, to measure with them or to tell them not to wait for this one."""
    from slurm.preflight.together import measure_in_node, measure_over_all, meeting

    with meeting(place, ready, wait_seconds) as members:
        return (
            ready
            and record.add(lambda facts: facts.model_copy(update={"stage": "met"}))
            and record.add(lambda facts: measure_in_node(facts, members))
            and record.add(lambda facts: measure_over_all(facts, members))
        )


def report(folder: Path, need_gb: float) -> int:
    """Print a line a node and what is wrong; 0 where all nodes are fit."""
    make(folder)  # where not even the judge may write, silence of the ranks says nothing of their nodes
    facts = read_facts(folder)
    nodes = os.environ.get("PREFLIGHT_NODES", "").split() or sorted({item.node for item in facts})
    if not nodes:
        raise UserError(f"{folder} has no facts of any rank: did `mecellem slurm preflight --measure {folder}` run?")
    tasks = int(os.environ.get("PREFLIGHT_TASKS") or max(sum(item.node == node for item in facts) for node in nodes))
    faults, between = judge(facts, nodes, tasks, need_gb), between_nodes(facts, nodes, tasks)
    out = console()
    out.print(table_of(facts, nodes, faults))
    for node, found in faults.items():
        for fault in found:
            out.print(f"{node}: {fault}", markup=False)
    if closed := unread(facts):
        out.print(f"note: dmesg is closed to users on {', '.join(closed)}: faults of GPUs (Xid) were not read", markup=False)
    if between:
        out.print(f"{UNFIT}{between}", markup=False)
    if faults:
        out.print(f"{UNFIT}sbatch --exclude={','.join(faults)} ...", markup=False)
    if not faults and not between:
        out.print(FIT, markup=False)
    (folder / JUDGED).touch()
    return 1 if faults or between else 0


def table_of(facts: Sequence[Facts], nodes: Sequence[str], faults: dict[str, list[str]]) -> Table:
    """A line a node, the slowest rank's figures."""
    from rich.table import Table

    table = Table("node", "ranks", "GPUs", "TFLOP/s", "write MB/s", "free GB", "all-reduce in node", "over all GB/s", "fit")
    for node in nodes:
        ranks = [item for item in facts if item.node == node]
        if not ranks:
            table.add_row(node, "0", *["-"] * 6, "no")
            continue
        writes = next((item for item in ranks if item.write is not None), ranks[0])
        first = ranks[0]
        table.add_row(
            node,
            str(len(ranks)),
            f"{len(first.gpus)} x {first.gpus[0].name}" if first.gpus else "none",
            shown(min((item.matmul for item in ranks if item.matmul is not None), default=None), ".3g"),
            shown(writes.write, ".0f"),
            shown(writes.free_gb, ",.0f"),
            shown(first.all_reduce_node, ".2f"),
            shown(first.all_reduce, ".2f"),
            "no" if node in faults else "yes",
        )
    return table


def shown(value: float | None, form: str) -> str:
    """A number, or a dash."""
    return "-" if value is None else format(value, form)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem slurm preflight`."""
    return int(parse_and_call(preflight, argv, prog="mecellem slurm preflight") or 0)
