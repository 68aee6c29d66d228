"""Stage 00, read: sources to shards of documents; what cannot be read is located and set aside.

Phases: line numbers (only where a file is cut into byte ranges), reading, and where records bring ids of their own, the
search for repeated ones with datatrove's exact deduplication.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import zstandard
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from preprocessing.pipeline.layout import StageFolders, shard_path, write_whole
from preprocessing.pipeline.ledger import FIELDS, Location, Recorder, read_ledger
from preprocessing.pipeline.partners import Partners, document_origin
from preprocessing.pipeline.phases import Phase
from preprocessing.pipeline.plan import Plan, read_task
from preprocessing.pipeline.shards import LinesOnDemand, ReadShards, document_writer
from preprocessing.sources.blocks import DamagedError, blocks
from preprocessing.sources.documents import field_names, read_part
from preprocessing.sources.found import Problem, Skipped
from preprocessing.sources.lines import SAMPLE

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline

VERSION = 3  # of what reading gives for the same sources
NAME = "read"


def phases(plan: Plan, folders: StageFolders) -> list[Phase]:
    """What is to be run to read the sources."""
    shards = len(plan.tasks)
    numbering = [Phase("lines", shards, [CountLines(folders)]), Phase("numbers", 1, [NumberLines(folders)])]
    before = numbering if plan.needs_line_numbers else []
    if not plan.has_own_ids:
        return [*before, Phase("read", shards, [ReadSources(folders, folders.root)])]
    from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig

    from preprocessing.stages.exact_dedup import finding, hashing

    raw, config = folders.work / "raw", ExactDedupConfig(content_getter=own_id)
    read = Phase("read", shards, [ReadSources(folders, raw)])
    hash_ids = Phase("hash", shards, [ReadShards(raw / "shards"), *hashing(folders.work, config, document_origin)])
    keep = Phase("ids", shards, [KeepFirstIds(folders, raw)])
    return [*before, read, hash_ids, *finding(folders.work, shards, config), keep]


def ledgers_of(phase: Phase) -> Path | None:
    """Where the tasks of a phase write down what they could not read; None for a phase that reads no sources."""
    [block, *_] = phase.pipeline
    return block.out / "ledger" if isinstance(block, ReadSources) else None


def own_id(document: Document) -> bytes:
    """What is compared to find repeated ids: each source counts its own."""
    return f"{document.metadata['source']}\0{document.id}".encode()


class CountLines(PipelineStep):
    """Counts the line ends of the byte ranges that a task reads."""

    type = "📖 - READER"
    name = "count lines"

    def __init__(self, folders: StageFolders) -> None:
        super().__init__()
        self.folders = folders

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the count of each part; yields nothing."""
        counts = []
        for part in read_task(self.folders.input, rank).parts:
            count = 0
            if part.end is not None:
                with contextlib.suppress(DamagedError, OSError):  # the task that reads it tells what is wrong
                    count = sum(block.count(b"\n") for block in blocks(Path(part.path), part.start, part.end))
            counts.append(count)
        write_whole(self.folders.work / "lines" / f"{rank:05d}.json", counts)
        yield from ()


class NumberLines(PipelineStep):
    """Adds the counts up: the number of the first line of each part."""

    type = "📖 - READER"
    name = "number lines"

    def __init__(self, folders: StageFolders) -> None:
        super().__init__()
        self.folders = folders

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the first numbers of all tasks, a file a task; yields nothing."""
        path, before = "", 0
        for task in range(self.folders.tasks):
            firsts = []
            counts = orjson.loads((self.folders.work / "lines" / f"{task:05d}.json").read_bytes())
            for part, count in zip(read_task(self.folders.input, task).parts, counts, strict=True):
                if part.path != path or part.start == 0:
                    path, before = part.path, 0
                firsts.append(before + 1 if part.first == 0 else part.first)
                before += count
            write_whole(self.folders.work / "firsts" / f"{task:05d}.json", firsts)
        yield from ()


class ReadSources(PipelineStep):
    """Reads what a task is to read; writes shard, ledger and, where there is something to set aside, quarantine."""

    type = "📖 - READER"
    name = "sources"

    def __init__(self, folders: StageFolders, out: Path) -> None:
        super().__init__()
        self.folders = folders
        self.out = out

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the files of task `rank` below `out`; yields nothing."""
        task, recorder = read_task(self.folders.input, rank), Recorder()
        with (
            self.track_time("task"),
            Quarantine(shard_path(self.out / "quarantine", rank), recorder) as quarantine,
            document_writer(shard_path(self.out / "shards", rank)) as write,
        ):
            for part in self._numbered(task.parts, rank):
                for item in read_part(part, task.reading):
                    if isinstance(item, Problem):
                        quarantine.add(_location(task.reading.source, part.path, item), item)
                    elif isinstance(item, Skipped):
                        recorder.skip(task.reading.source, item.reason)
                    else:
                        recorder.enter(item)
                        recorder.keep(item)
                        recorder.count_fields(item, task.reading.keep_fields)
                        write(item)
        for source in recorder.ledger.sources.values():
            if not all(source.fields.values()):
                source.other_fields = field_names(task.parts, task.reading, FIELDS)
        write_whole(self.out / "ledger" / f"{rank:05d}.json", recorder.finish())
        yield from ()

    def _numbered(self, parts: list[Any], rank: int) -> Iterator[Any]:
        """The parts with the numbers of their first lines, which the phases before found out."""
        if all(part.first for part in parts):
            yield from parts
            return
        firsts = orjson.loads((self.folders.work / "firsts" / f"{rank:05d}.json").read_bytes())
        for part, first in zip(parts, firsts, strict=True):
            yield dataclasses.replace(part, first=first)


class Quarantine:
    """Writes records that cannot be read, with where they stand and why; without any there is no file."""

    def __init__(self, path: Path, recorder: Recorder) -> None:
        self._lines = LinesOnDemand(path)
        self._recorder = recorder

    def __enter__(self) -> Quarantine:
        self._lines.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lines.__exit__(*error)

    def add(self, location: Location, problem: Problem) -> None:
        """Set one record aside."""
        data = problem.data.decode("utf-8", "backslashreplace")
        fields = {**location.model_dump(), "reason": problem.reason, "record": data}
        self._lines.write(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))
        self._recorder.quarantine(location, problem.reason)

    def copy(self, path: Path) -> None:
        """Write again what another quarantine file holds, if it is there; the ledger knows of it."""
        if path.exists():
            with zstandard.open(path, "rb") as lines:
                self._lines.write(lines.read())


class KeepFirstIds(PipelineStep):
    """Of documents with one id the first of the input stays, the others are set aside; most shards just move on."""

    type = "💽 - WRITER"
    name = "first ids"

    def __init__(self, folders: StageFolders, raw: Path) -> None:
        super().__init__()
        self.folders = folders
        self.raw = raw

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write shard, ledger and quarantine of task `rank`; yields nothing."""
        repeated, _ = Partners(self.folders.work).of(rank)
        if not repeated:
            shard = shard_path(Path(), rank).name
            for name in (f"quarantine/{shard}", f"shards/{shard}", f"ledger/{rank:05d}.json"):
                _link(self.raw / name, self.folders.root / name)
        else:
            self._rewrite(rank, {number: first for number, (first, _) in repeated.items()})
        yield from ()

    def _rewrite(self, rank: int, repeated: dict[int, str]) -> None:
        """`repeated`: numbers, in the shard, of documents whose id came earlier, and where."""
        recorder = Recorder()
        recorder.ledger = read_ledger(self.raw / "ledger" / f"{rank:05d}.json")
        earlier = shard_path(self.raw / "quarantine", rank)
        with Quarantine(shard_path(self.folders.quarantine, rank), recorder) as quarantine:
            quarantine.copy(earlier)
            with document_writer(shard_path(self.folders.shards, rank)) as write:
                for number, document in enumerate(ReadShards(self.raw / "shards").run(None, rank, 1)):
                    if number not in repeated:
                        write(document)
                        continue
                    recorder.take_back(document)
                    quarantine.add(*_repeated_id(document, repeated[number]))
        write_whole(self.folders.ledgers / f"{rank:05d}.json", recorder.finish())


def _location(source: str, file: str, problem: Problem) -> Location:
    return Location(source=source, file=file, line=problem.number, detail=problem.detail)


def _repeated_id(document: Document, first: str) -> tuple[Location, Problem]:
    match = re.fullmatch(r"(.*)[:#](\d+)", document.metadata["origin"], re.DOTALL)
    file, number = (match[1], int(match[2])) if match else (document.metadata["origin"], 0)
    detail = f"the id {document.id[:100]!r} stands in an earlier record, {first}"
    location = Location(source=document.metadata["source"], file=file, line=number, detail=detail)
    return location, Problem(number, "duplicate_id", detail, document.text[:SAMPLE].encode())


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, in place of what may have that name."""
    target.unlink(missing_ok=True)
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
