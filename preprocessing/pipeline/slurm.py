"""What only Slurm needs: the end of a stage as a task of its own, and a sentence where there is no Slurm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from mecellem.errors import UserError
from preprocessing.pipeline.config import Limits
from preprocessing.pipeline.layout import StageFolders
from preprocessing.pipeline.phases import Phase
from preprocessing.pipeline.steps import Step, finish, free_shards

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline


class FinishStage(PipelineStep):
    """Sums ledgers, checks limits, writes `done.json`, frees what was read: the stage after waits for this task to succeed."""

    type = "📊 - STATS"
    name = "finish"

    def __init__(self, folders: StageFolders, digest: str, limits: dict[str, Limits], frees: StageFolders | None) -> None:
        super().__init__()
        self.folders = folders
        self.digest = digest
        self.limits = limits
        self.frees = frees

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Finish the stage; yields nothing."""
        finish(self.folders, self.digest, self.limits)
        if self.frees:
            free_shards(self.frees)
        yield from ()


def last_phases(stage: Step, limits: dict[str, Limits], frees: StageFolders | None) -> list[Phase]:
    """The task that ends a stage; `frees` is the stage before it where its shards are not to be kept."""
    return [Phase("finish", 1, [FinishStage(stage.folders, stage.digest, limits, frees)])]


@contextmanager
def sbatch_or_say() -> Iterator[None]:
    """Turn a missing or unwilling `sbatch` into a `UserError`."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename != "sbatch":
            raise
        raise UserError("--executor slurm needs the program sbatch: run this on a login node of the cluster") from None
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"sbatch refused the job (exit code {error.returncode}; its message stands above): check --site"
        ) from None
