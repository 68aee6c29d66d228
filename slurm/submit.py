"""`mecellem slurm submit`: the jobs of a pipeline.yaml, each waiting for those before it; what is done is not done again.

Beside the file lies the folder FILE.jobs: `jobs.json` with the number of every stage's newest job and its very command, a mark
for every task that ended well, and where the output of every task is, which `slurm/common.sh` leaves.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from mecellem.console import console
from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from mecellem.site_file import read_site, refuse_long_array, site_options
from mecellem.slurm_client import ask, jobs_under_way, of_cpus
from slurm.pipeline import Step, not_in, option_words, read_pipeline

JOBS = "jobs.json"
OUTPUTS = "outputs"


@dataclass(slots=True)
class Submission:
    """One call: the folder of marks, the site and its settings, jobs by stage (numbers, or stand-ins in a dry run)."""

    folder: Path
    site: Path
    settings: dict[str, str]
    jobs: dict[str, str] = field(default_factory=dict)

    def command(self, step: Step, left: Sequence[int]) -> list[str]:
        """The very call of sbatch."""
        stage = step.stage
        site = not_in(stage.options, site_options(of_cpus(self.settings) if stage.cpu else self.settings))
        # what a job is to see stands in the environment: also where a login shell has SBATCH_EXPORT=NONE
        words = ["sbatch", "--parsable", "--export=ALL", f"--job-name={stage.name}", *site]
        if waits := [self.jobs[name] for name in step.after if name in self.jobs]:
            words += [f"--dependency=afterok:{':'.join(waits)}", "--kill-on-invalid-dep=yes"]
        if stage.array is not None:
            limit = f"%{stage.at_once}" if stage.at_once else ""
            words += [f"--array={ranges(left)}{limit}"]
        return [*words, *option_words(stage.options), str(stage.job), *map(str, stage.arguments)]

    def environment(self, step: Step) -> dict[str, str]:
        """What the job sees besides the environment of the call, which sbatch hands on."""
        found = {name: str(value) for name, value in step.stage.environment.items()}
        found |= {"MECELLEM_OUTPUTS": str(self.folder.resolve() / OUTPUTS)}
        found |= {"MECELLEM_DONE": str(mark_of(self.folder, step)), "MECELLEM_SITE": str(self.site)}
        return found | ({"MECELLEM_ARRAY_SIZE": str(step.stage.array)} if step.stage.array else {})


def jobs_folder(pipeline: Path) -> Path:
    """Where the marks and jobs of a pipeline.yaml are."""
    return pipeline.with_suffix(".jobs")


def mark_of(folder: Path, step: Step) -> Path:
    """What a job of the stage adds its task's number to."""
    return folder.resolve() / "done" / f"{step.stage.name}-{step.digest}"


def output_record(folder: Path, job: str, task: int) -> Path:
    """The file that says where the output of a job's task is: Slurm itself forgets it soon."""
    return folder / OUTPUTS / f"{job}.{task}"


def tasks_left(folder: Path, step: Step) -> list[int]:
    """Tasks of a stage that have left no mark in the folder of jobs."""
    return [index for index in step.stage.indices if not mark_of(folder, step).with_suffix(f".{index}").exists()]


def ranges(numbers: Sequence[int]) -> str:
    """`0-3,7` for 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def read_jobs(path: Path) -> dict[str, dict[str, str]]:
    """Stage -> job, digest and command of earlier calls. Raises `UserError` for a file that is something else."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(item, dict) and "job" in item for item in content.values()):
        raise UserError(f"{path} is not what `mecellem slurm submit` writes: remove it, then look at squeue for jobs under way")
    return content


def refuse_stale(steps: Sequence[Step], folder: Path, earlier: dict[str, dict[str, str]], queued: set[str]) -> None:
    """Raise `UserError`, before anything is submitted, for a job under way that is outdated or will never begin."""
    anew: set[str] = set()
    for step in steps:
        name, job = step.stage.name, earlier.get(step.stage.name, {}).get("job", "")
        if not tasks_left(folder, step):
            continue
        if job not in queued:
            anew.add(name)
        elif earlier[name]["digest"] != step.digest:
            raise UserError(f"job {job} does {name!r} with older settings: let it end, or scancel {job}")
        elif before := anew & set(step.after):
            raise UserError(
                f"job {job} ({name}) waits for an earlier job of {', '.join(sorted(before))} that has ended without success: "
                f"scancel {job}, or wait until Slurm has removed it, and submit again"
            )


def submit(
    pipeline: tyro.conf.Positional[Path],
    site: Path = Path("slurm/cluster.env"),
    dry_run: bool = False,
) -> None:
    """Submit the stages of a pipeline.yaml, each waiting for those before it to end well.

    The same call again goes on: stages that are done stay so, jobs under way are waited for, and of an array only those tasks
    are submitted that have not ended well. A changed stage is done again, and so are those after it.

    Args:
        pipeline: the YAML file; it names jobs of slurm/ with their arguments
        site: account, partition and QOS of this cluster, and what jobs need there
        dry_run: print the very calls of sbatch, and submit nothing
    """
    steps, settings = read_pipeline(pipeline), read_site(site)
    for step in steps:
        refuse_long_array(f"{pipeline}: the stage {step.stage.name}", step.stage.array or 1, settings)
    folder = jobs_folder(pipeline)
    work = Submission(folder, site.resolve(), settings)
    earlier = read_jobs(folder / JOBS)
    queued = jobs_under_way() if earlier else set()
    refuse_stale(steps, folder, earlier, queued)
    out = console()
    for step in steps:
        name, left = step.stage.name, tasks_left(folder, step)
        if not left:
            out.print(f"{name:<16} done already", markup=False)
            continue
        before = earlier.get(name)
        if before and before["job"] in queued:
            work.jobs[name] = before["job"]
            out.print(f"{name:<16} under way: job {before['job']}", markup=False)
            continue
        command, environment = work.command(step, left), work.environment(step)
        shown = shlex.join([*(f"{key}={value}" for key, value in environment.items()), *command])
        if dry_run:
            work.jobs[name] = f"<{name}>"
            out.print(shown, markup=False)
            continue
        for place in (mark_of(folder, step).parent, folder / OUTPUTS):
            place.mkdir(parents=True, exist_ok=True)
        work.jobs[name] = ask(*command, env=environment).partition(";")[0]
        earlier[name] = {"job": work.jobs[name], "digest": step.digest, "command": shown}
        with atomic_write(folder / JOBS) as handle:
            json.dump(earlier, handle, indent=1)
        out.print(f"{name:<16} job {work.jobs[name]}" + (f", tasks {ranges(left)}" if step.stage.array else ""), markup=False)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem slurm submit`."""
    parse_and_call(submit, argv, prog="mecellem slurm submit")
    return 0
