"""`mecellem slurm bench`: submit what a sweep has not measured yet, and show what it has.

Beside the file lies FILE.bench: a folder for every point with its measurement and the records of its jobs, the lists of
points that arrays read, `results.csv` and `report.html`.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import tyro

from mecellem.console import console
from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from mecellem.site_file import read_site, refuse_long_array, site_options
from mecellem.slurm_client import ask
from slurm.bench.results import Row, collect, state_of
from slurm.bench.sweep import Point, Sweep, read_sweep
from slurm.pipeline import not_in, option_words
from slurm.submit import ranges

SUBMITTED = "submitted.json"  # folder of a point -> JOB_TASK
JOB = "slurm/bench.sbatch"


def bench(
    sweep: tyro.conf.Positional[Path],
    site: Path = Path("slurm/cluster.env"),
    dry_run: bool = False,
    again: bool = False,
) -> None:
    """Measure how fast a recipe trains on this cluster: layouts x batches x precisions x nodes, as arrays of short jobs.

    The first call submits; the same call later shows what is measured so far, predicts the rest, says how far off
    predictions are, and submits what was added to the file since. Points on the same number of nodes are one array, as all
    tasks of an array get the same nodes.

    Args:
        sweep: the YAML file, such as slurm/sweeps/mursit_base.yaml
        site: account, partition and QOS of this cluster, and what jobs need there
        dry_run: print the very calls of sbatch and the lists of points, and submit nothing
        again: submit failed points once more
    """
    wanted, settings, folder = read_sweep(sweep), read_site(site), sweep.with_suffix(".bench")
    for nodes in wanted.all_nodes:
        refuse_long_array(f"{sweep}: {nodes} nodes", sum(point.nodes == nodes for point in wanted.points()), settings)
    submitted = read_submitted(folder / SUBMITTED)
    running = tasks_under_way() if submitted else set()
    rows = [state_of(point, folder, submitted, running) for point in wanted.points()]
    due = [row.point for row in rows if row.state == "to do" or (again and row.state == "failed")]
    out = console()
    for nodes in sorted({point.nodes for point in due}):
        points = [point for point in due if point.nodes == nodes]
        text = "".join(f"{point.folder}\t{shlex.join(point.command)}\n" for point in points)
        listed = folder / f"points-{nodes}-{hashlib.sha256(text.encode()).hexdigest()[:6]}.tsv"
        command = sbatch(wanted, nodes, len(points), listed, site_options(settings))
        if dry_run:
            out.print(f"{shlex.join([f'MECELLEM_SITE={site.resolve()}', *command])}\n{text}", markup=False, highlight=False)
            continue
        with atomic_write(listed) as handle:
            handle.write(text)
        job = ask(*command, env={"MECELLEM_SITE": str(site.resolve())}).partition(";")[0]
        submitted |= {point.folder: f"{job}_{task}" for task, point in enumerate(points)}
        with atomic_write(folder / SUBMITTED) as handle:
            json.dump(submitted, handle, indent=1)
        out.print(f"job {job}: {len(points)} points on {nodes} nodes", markup=False)
    if not dry_run:
        show(wanted, [renewed(row, submitted, due) for row in rows], folder)


def sbatch(sweep: Sweep, nodes: int, points: int, listed: Path, site: list[str]) -> list[str]:
    """The call for all points on so many nodes."""
    gpus = sweep.ranks_per_node if sweep.gpus_per_node is None else sweep.gpus_per_node
    limit = f"%{sweep.at_once}" if sweep.at_once else ""
    own, site = option_words(sweep.options), not_in(sweep.options, site)
    size = [f"--nodes={nodes}", f"--ntasks-per-node={sweep.ranks_per_node}", f"--gpus-per-node={gpus}"]
    ours = ["--parsable", "--export=ALL", f"--array={ranges(range(points))}{limit}"]
    return ["sbatch", *ours, *site, *size, *own, JOB, str(listed)]


def renewed(row: Row, submitted: dict[str, str], due: Sequence[Point]) -> Row:
    """A row with the job that this call gave it."""
    return Row(row.point, "under way", f"job {submitted[row.point.folder]}") if row.point in due else row


def show(sweep: Sweep, rows: Sequence[Row], folder: Path) -> None:
    """Print the table and write the page."""
    from slurm.bench.show import lines, table, write_page

    found = collect(sweep, rows, folder)
    out = console()
    out.print(table(found))
    for line in lines(found):
        out.print(line, markup=False)
    if any(row.measurement for row in rows):
        out.print(f"wrote   {write_page(found, folder)}, {folder / 'results.csv'}", markup=False)


def tasks_under_way() -> set[str]:
    """`JOB_TASK` of every task of this user's arrays that waits or runs."""
    return set(ask("squeue", "--me", "--array", "--noheader", "--format=%F_%K").split())


def read_submitted(path: Path) -> dict[str, str]:
    """Folder of a point -> JOB_TASK of its newest job. Raises `UserError` for a file that is something else."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(item, str) for item in content.values()):
        raise UserError(f"{path} is not what `mecellem slurm bench` writes: remove it, then look at squeue for jobs under way")
    return content


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem slurm bench`."""
    parse_and_call(bench, argv, prog="mecellem slurm bench")
    return 0
