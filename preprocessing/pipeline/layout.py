"""Where a run keeps what: one folder a stage, one file a task, every file whole or absent.

OUT/stages/00_read/tasks/00000.json     which parts of which files task 0 reads
OUT/stages/03_quality/
    begun.json                      digest of settings, input and code under which the work below was done
    shards/00000.jsonl.zst          the documents that stay
    ledger/00000.json               what happened to the documents of that shard
    quarantine/00000.jsonl.zst      records that could not be read (stage 00 only)
    dropped/00000.jsonl.zst         id, origin and reason of every document that went (the other stages)
    work/                           indexes of a stage that needs all documents
    logs/PHASE/                     datatrove's logs, statistics and marks of completed tasks
    ledger.json, done.json          the sum of the ledgers; the stage is complete
OUT/jobs.json                   Slurm jobs of the newest call that submitted any, by stage and phase
OUT/tokens/NAME.bin, .idx, .manifest.json   the corpus, by source and licence
OUT/tokens/NAME.provenance.jsonl.zst        the stages, and the raw files behind every range of documents
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mecellem.errors import UserError
from mecellem.files import atomic_write

SHARD_SUFFIX = ".jsonl.zst"

# Metadata of one stage, counted in its ledger and not written to its shards. Whatever stage looks for duplicates sets
# `duplicate_of` of a document that goes, the id of the one that stays in its place, and `duplicate_count` of both, how many
# go because of the one that stays; any stage may set `drop_detail`, what exactly led to the drop, for people.
OWN_TO_STAGE = ("measures", "filter_reason", "drop_detail", "duplicate_of", "duplicate_count")
# All that lies in a stage's folder, but for temporary files, whose names begin with a dot.
STAGE_PARTS = frozenset(
    ("begun.json", "done.json", "ledger.json", "tasks", "shards", "ledger", "quarantine", "dropped", "work", "logs")
)


@dataclass(frozen=True, slots=True)
class StageFolders:
    """The folders of one stage: it reads `input`, the shards of the stage before, in `tasks` tasks, one a shard."""

    root: Path
    input: Path
    tasks: int

    @property
    def name(self) -> str:
        """The stage's name in the YAML file."""
        return self.root.name.partition("_")[2]

    @property
    def shards(self) -> Path:
        """The documents that stay, one file a task."""
        return self.root / "shards"

    @property
    def ledgers(self) -> Path:
        """What happened to documents, one file a task."""
        return self.root / "ledger"

    @property
    def quarantine(self) -> Path:
        """Records that could not be read, one file a task that met any."""
        return self.root / "quarantine"

    @property
    def dropped(self) -> Path:
        """Which documents went and why, one file a task that dropped any."""
        return self.root / "dropped"

    @property
    def work(self) -> Path:
        """What the phases of this stage leave for each other."""
        return self.root / "work"

    @property
    def ledgers_so_far(self) -> Path:
        """Where the ledgers of tasks are while the stage is under way: those of reading wait until all ids are known."""
        raw = self.work / "raw" / "ledger"
        return raw if raw.is_dir() and not self.ledgers.is_dir() else self.ledgers

    def logs(self, phase: str) -> Path:
        """Datatrove's folder of a phase: logs, statistics, marks of completed tasks."""
        return self.root / "logs" / phase


def refuse_foreign(stage: Path) -> None:
    """Raise `UserError` for a folder among the stages, about to be removed, that holds what no run has written."""
    for item in sorted(stage.iterdir()):
        if item.name not in STAGE_PARTS and not item.name.startswith("."):
            raise UserError(
                f"{item} was not written by `mecellem prepare run`, which would remove it: move it, or set another out"
            )


@dataclass(frozen=True, slots=True)
class RunFolders:
    """The folders of a run under `out`."""

    out: Path

    @property
    def stages(self) -> Path:
        """One folder a stage, in order."""
        return self.out / "stages"

    @property
    def jobs(self) -> Path:
        """The Slurm jobs of the newest call that submitted any."""
        return self.out / "jobs.json"

    @property
    def tokens(self) -> Path:
        """The `.bin/.idx` files."""
        return self.out / "tokens"

    def stage(self, number: int, name: str, before: StageFolders | None, tasks: int) -> StageFolders:
        """Folders of the stage of that number; `before` is the one whose shards it reads (None: it reads sources)."""
        root = self.stages / f"{number:02d}_{name}"
        return StageFolders(root, before.shards if before else root / "tasks", tasks)


def shard_path(folder: Path, number: int) -> Path:
    """The shard of a task."""
    return folder / f"{number:05d}{SHARD_SUFFIX}"


def shard_paths(folders: StageFolders) -> list[Path]:
    """All shards of a stage, in order. Raises `UserError` where one is missing."""
    paths = [shard_path(folders.shards, number) for number in range(folders.tasks)]
    there = {entry.name for entry in os.scandir(folders.shards)} if folders.shards.is_dir() else set()
    for path in paths:
        if path.name not in there:
            raise UserError(f"{path} is missing: remove {folders.root} and run the same command again")
    return paths


def whole_file(path: Path) -> AbstractContextManager[IO[bytes]]:
    """`atomic_write` for one of a stage's many files: leftovers of killed writers are `sweep`'s, once a stage."""
    return atomic_write(path, "wb", look_for_leftovers=False)


def write_whole(path: Path, data: Any) -> None:
    """Write `data`, a pydantic model or what JSON can say, to `path` in one piece."""
    import orjson
    from pydantic import BaseModel

    plain = data.model_dump(mode="json") if isinstance(data, BaseModel) else data
    with whole_file(path) as handle:
        handle.write(orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE))


def sweep(folder: Path) -> None:
    """Delete what killed writers left below `folder`; only for the one who holds the run's lock."""
    for item in folder.rglob(".*.tmp-*"):
        if item.is_file():
            item.unlink()
