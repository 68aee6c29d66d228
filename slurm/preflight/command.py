"""`mecellem slurm preflight`: submit the job, or be one of its ranks, or judge what the ranks wrote."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mecellem.console import console
from mecellem.errors import UserError
from mecellem.flags import parse_and_call
from mecellem.site_file import read_site, site_options
from slurm.preflight.facts import Facts, measure_alone, measure_together, read_facts, write_facts
from slurm.preflight.judge import judge
from slurm.submit import ask, under_way

if TYPE_CHECKING:
    from rich.table import Table

JOB = Path("slurm/preflight.sbatch")
POLL_SECONDS = 2.0
FIT = "all nodes are fit"


def preflight(
    nodes: int | None = None,
    options: tuple[str, ...] = (),
    site: Path = Path("slurm/cluster.env"),
    need_gb: float = 100.0,
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
        measure: for the job itself: be a rank, and write what is found to this folder, which all nodes see
        judge_facts: for the job itself: compare what the ranks wrote there
    """
    if measure is not None and judge_facts is not None:
        raise UserError("--measure is for every rank and --judge-facts for what comes after: give one of them")
    if measure is not None:
        return run_rank(measure)
    if judge_facts is not None:
        return report(judge_facts, need_gb)
    return submit(nodes, options, site, need_gb)


def submit(nodes: int | None, options: Sequence[str], site: Path, need_gb: float) -> int:
    """Submit slurm/preflight.sbatch, wait for it, and show what it printed."""
    words = site_options(read_site(site))
    words += [f"--nodes={nodes}"] * (nodes is not None) + [f"--{option}" for option in options]
    if not JOB.is_file():
        raise UserError(f"{JOB} is missing: start this from the repository's root")
    output = Path(f"preflight-{os.getpid()}.out").resolve()
    command = ["sbatch", "--parsable", *words, f"--output={output}", str(JOB), "--need-gb", str(need_gb)]
    job = ask(*command, env={"MECELLEM_SITE": str(site.resolve())}).partition(";")[0]
    console().print(f"job {job}, its output is {output}", markup=False)
    while under_way(job):
        time.sleep(POLL_SECONDS)
    text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    console().print(text, markup=False)
    return 0 if FIT in text else 1


def run_rank(folder: Path) -> int:
    """One rank, started by srun."""
    import torch.distributed as dist

    from megatron_recipes.engine import runtime
    from megatron_recipes.engine.launch import Rank, rank_from_environment

    place = rank_from_environment() or Rank(0, 1, 0, None)
    folder.mkdir(parents=True, exist_ok=True)
    facts = measure_alone(place.rank, place.local_rank, folder)
    write_facts(folder, facts)
    with tempfile.TemporaryDirectory(prefix="mecellem-store-") as store:
        method = "env://" if place.world_size > 1 else f"file://{store}/store"
        dist.init_process_group(runtime.backend(), init_method=method, rank=place.rank, world_size=place.world_size)
        facts = measure_together(facts)
        write_facts(folder, facts)
        dist.destroy_process_group()
    return 0


def report(folder: Path, need_gb: float) -> int:
    """Print a line a node and what is wrong; 0 where all nodes are fit."""
    facts = read_facts(folder)
    nodes = os.environ.get("PREFLIGHT_NODES", "").split() or sorted({item.node for item in facts})
    if not nodes:
        raise UserError(f"{folder} has no facts of any rank: did `mecellem slurm preflight --measure {folder}` run?")
    tasks = int(os.environ.get("SLURM_NTASKS_PER_NODE") or max(sum(item.node == node for item in facts) for node in nodes))
    faults = judge(facts, nodes, tasks, need_gb)
    out = console()
    if not out.is_terminal:
        out.width = 160
    out.print(table_of(facts, nodes, faults))
    for node, found in faults.items():
        for fault in found:
            out.print(f"{node}: {fault}", markup=False)
    if faults:
        out.print(f"not fit: sbatch --exclude={','.join(faults)} ...", markup=False)
        return 1
    out.print(FIT, markup=False)
    return 0


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
            f"{min(item.matmul for item in ranks):.3g}",
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
