"""`OUT/jobs.json`: the Slurm jobs of a run, so that no two of them ever work on the same shards."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mecellem.errors import UserError
from mecellem.slurm_client import jobs_under_way
from preprocessing.pipeline.layout import RunFolders, StageFolders, write_whole


class Job(BaseModel):
    """One array: its number, and what it does. `digest` is the stage's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    stage: str
    phase: str
    digest: str


_JOBS = TypeAdapter(list[Job])


def read_jobs(out: Path) -> list[Job]:
    """The jobs of the newest call that submitted any. Raises `UserError` for a file that is something else."""
    path = RunFolders(out).jobs
    try:
        return _JOBS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError:
        raise UserError(
            f"{path} is not what `mecellem prepare run` writes: remove it, then look at squeue for jobs under way"
        ) from None


def write_jobs(out: Path, jobs: list[Job]) -> None:
    """Keep them, in the order in which they were submitted."""
    write_whole(RunFolders(out).jobs, [job.model_dump() for job in jobs])


def refuse_beside_jobs(out: Path) -> None:
    """Raise `UserError` where jobs of the run wait or run, or where Slurm does not tell; forget those that are over.

    Slurm is asked only for jobs of stages that are not done: where all are, a machine without Slurm goes on.
    """
    path = RunFolders(out).jobs
    left = [item for item in read_jobs(out) if not _is_over(out, item)]
    try:
        waiting = jobs_under_way() if left else set()
    except UserError as error:
        raise UserError(
            f"whether the Slurm jobs that were submitted for {out} are under way is not known: {error}; where they have ended, "
            f"remove {path}"
        ) from None
    if jobs := [item.job for item in left if item.job in waiting]:
        raise UserError(
            f"Slurm jobs {', '.join(jobs)} work in {out}: wait for them, or end them with `scancel {' '.join(jobs)}`, "
            "and give the same command again"
        )
    path.unlink(missing_ok=True)


def _is_over(out: Path, job: Job) -> bool:
    """Whether the stage was completed, which is what its last job does."""
    from preprocessing.pipeline.steps import read_done

    root = RunFolders(out).stages / job.stage
    done = read_done(StageFolders(root, root, 0))
    return done is not None and done.digest == job.digest
