"""What only Slurm needs: what a site's nodes need before a task starts, and the end of a stage as a task of its own."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
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


def environment_of(site: dict[str, str], path: Path) -> str:
    """Shell that leads to mecellem on a node: ENV_COMMAND of the site in `path`, else MODULES and VENV, or the Python of now.

    Raises `UserError` for a runtime in containers, and for an environment that is not there.
    """
    if command := site.get("ENV_COMMAND"):
        return command
    runtime = site.get("RUNTIME", "")
    if runtime in ("apptainer", "pyxis"):
        raise UserError(
            f"{path}: RUNTIME={runtime}: arrays of `prepare run` start without a container: give ENV_COMMAND= that leads to a "
            "mecellem outside of it, or prepare on one node with `sbatch slurm/prepare.sbatch run CORPUS`"
        )
    parts = _loading(site.get("MODULES", "").split())
    activate = Path(site["VENV"], "bin", "activate").absolute() if site.get("VENV") else None
    if runtime == "venv" and activate and not activate.exists():
        raise UserError(f"{path}: VENV={site['VENV']}: {activate} is missing: name the environment that has mecellem")
    if activate and activate.exists():
        parts.append(f". {shlex.quote(str(activate))}")
    else:
        parts.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    return "; ".join(parts)


def _loading(modules: list[str]) -> list[str]:
    """Commands that load modules. Some batch shells know no `module`, and where Slurm is one, purging takes srun along."""
    if not modules:
        return []
    loads = [f"module load {shlex.quote(name)} || exit 1" for name in modules]
    before = ["slurm=$(dirname $(command -v srun))", "command -v module >/dev/null || . /etc/profile", "module purge"]
    return [*before, *loads, "export PATH=$PATH:$slurm"]


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
