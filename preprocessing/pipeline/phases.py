"""What a stage is made of: phases, each of which datatrove runs as so many independent tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from preprocessing.pipeline.layout import StageFolders, shard_path, write_whole
from preprocessing.pipeline.ledger import Recorder
from preprocessing.pipeline.shards import LinesOnDemand, ReadShards, document_writer

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline


_NOTED = re.compile(r"too_short_to_judge|contaminated_.*")  # what blocks count beside what they drop and change


@dataclass(frozen=True, slots=True)
class Phase:
    """What one executor runs: `pipeline` with rank 0, 1, ..., `tasks` - 1. The phases of a stage run one after another.

    A task must write the same files whenever it is done again, whatever is left of an earlier, killed attempt.
    """

    name: str
    tasks: int
    pipeline: list[PipelineStep]


def keeping(folders: StageFolders, *steps: PipelineStep, reason: str | None = None) -> Phase:
    """The last phase of a stage: every task reads a shard, sends it through `steps` and writes what stays.

    `reason` is that of filters which give none themselves, as datatrove's filters of duplicates do.
    """
    return Phase("keep", folders.tasks, [KeepDocuments(folders, steps, reason)])


def reading(folders: StageFolders, name: str, *steps: PipelineStep) -> Phase:
    """A phase before the last: every task reads a shard and sends it through `steps`, which write to `folders.work`."""
    return Phase(name, folders.tasks, [ReadShards(folders.input), *steps])


class Drops:
    """Stands where a datatrove filter expects the writer of what it drops: tells the ledger, and lists which and why."""

    def __init__(self, recorder: Recorder, reason: str | None, dropped: LinesOnDemand) -> None:
        self._recorder = recorder
        self._reason = reason
        self._list = dropped

    def __enter__(self) -> Drops:
        return self  # the list stays open: a stage may have several filters

    def __exit__(self, *_: object) -> None:
        return None

    def write(self, document: Document, rank: int = 0) -> None:
        """A document was dropped."""
        reason = document.metadata.pop("filter_reason", None) or self._reason
        assert reason, "a filter that gives no reason needs one from its stage"
        self._recorder.drop(document, reason)
        line = {"id": document.id, "origin": document.metadata["origin"], "reason": reason}
        said = {name: document.metadata[name] for name in ("duplicate_of", "drop_detail") if document.metadata.get(name)}
        self._list.write(orjson.dumps(line | said, option=orjson.OPT_APPEND_NEWLINE))


class KeepDocuments(PipelineStep):
    """Reads the shard of the task, sends it through a stage's blocks, writes the shard that stays and the ledger."""

    type = "💽 - WRITER"
    name = "keep"

    def __init__(self, folders: StageFolders, steps: Sequence[PipelineStep], reason: str | None = None) -> None:
        super().__init__()
        self.folders = folders
        self.steps = list(steps)
        self.reason = reason

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write shard and ledger number `rank`; yields nothing."""
        recorder = Recorder()
        with self.track_time("task"), LinesOnDemand(shard_path(self.folders.dropped, rank)) as dropped:
            documents = self._entering(recorder, ReadShards(self.folders.input).run(None, rank, world_size))
            for step in self.steps:
                if hasattr(step, "exclusion_writer"):
                    step.exclusion_writer = Drops(recorder, self.reason, dropped)
                documents = step.run(documents, rank, world_size)
            with document_writer(shard_path(self.folders.shards, rank)) as write:
                for document in documents:
                    recorder.keep(document)
                    write(document)
        write_whole(self.folders.ledgers / f"{rank:05d}.json", recorder.finish(self._counted("changed_"), self._noted()))
        yield from ()

    def _entering(self, recorder: Recorder, documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            recorder.enter(document)
            yield document

    def _counted(self, beginning: str) -> dict[str, int]:
        """What the blocks counted under names with that beginning, without it."""
        return {
            name.removeprefix(beginning): int(stat.total)
            for step in self.steps
            for name, stat in step.stats.stats.items()
            if name.startswith(beginning)
        }

    def _noted(self) -> dict[str, int]:
        return {name: count for name, count in self._counted("").items() if _NOTED.fullmatch(name)}
