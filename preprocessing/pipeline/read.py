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
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import zstandard
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from preprocessing.pipeline.layout import StageFolders, shard_path, whole_file, write_whole
from preprocessing.pipeline.ledger import Location, Recorder, read_ledger
from preprocessing.pipeline.phases import Phase
from preprocessing.pipeline.plan import Plan, read_task
from preprocessing.pipeline.shards import ReadShards, document_writer
from preprocessing.sources.blocks import DamagedError, blocks
from preprocessing.sources.documents import read_part
from preprocessing.sources.found import Problem, Skipped
from preprocessing.sources.lines import SAMPLE

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline

VERSION = 2  # of what reading gives for the same sources
NAME = "read"


def phases(plan: Plan, folders: StageFolders) -> list[Phase]:
    """What is to be run to read the sources."""
    shards = len(plan.tasks)
    numbering = [Phase("lines", shards, [CountLines(folders)]), Phase("numbers", 1, [NumberLines(folders)])]
    before = numbering if plan.needs_line_numbers else []
    if not plan.has_own_ids:
        return [*before, Phase("read", shards, [ReadSources(folders, folders.root)])]
    from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig

    from preprocessing.stages.exact_dedup import finding

    raw = folders.work / "raw"
    signature, find, _ = finding(folders.work, shards, ExactDedupConfig(content_getter=own_id))
    hash_ids = Phase("hash", shards, [ReadShards(raw / "shards"), signature])
    read = Phase("read", shards, [ReadSources(folders, raw)])
    return [*before, read, hash_ids, find, Phase("ids", shards, [KeepFirstIds(folders, raw)])]


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
                        write(item)
        write_whole(self.out / "ledger" / f"{rank:05d}.json", recorder.finish({}))
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
        self._path = path
        self._recorder = recorder
        self._stack = ExitStack()
        self._writer: Any = None

    def __enter__(self) -> Quarantine:
        self._path.unlink(missing_ok=True)  # of an earlier attempt, when a file that was missing is back
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, location: Location, problem: Problem) -> None:
        """Set one record aside."""
        data = problem.data.decode("utf-8", "backslashreplace")
        fields = {**location.model_dump(), "reason": problem.reason, "record": data}
        self._write(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))
        self._recorder.quarantine(location, problem.reason)

    def copy(self, path: Path) -> None:
        """Write again what another quarantine file holds, if it is there; the ledger knows of it."""
        if path.exists():
            with zstandard.open(path, "rb") as lines:
                self._write(lines.read())

    def _write(self, lines: bytes) -> None:
        if self._writer is None:
            handle = self._stack.enter_context(whole_file(self._path))
            self._writer = self._stack.enter_context(zstandard.ZstdCompressor(level=3).stream_writer(handle, closefd=False))
        self._writer.write(lines)


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
        repeated = self._repeated(rank)
        if not repeated:
            shard = shard_path(Path(), rank).name
            for name in (f"quarantine/{shard}", f"shards/{shard}", f"ledger/{rank:05d}.json"):
                _link(self.raw / name, self.folders.root / name)
        else:
            self._rewrite(rank, repeated)
        yield from ()

    def _repeated(self, rank: int) -> set[int]:
        """The numbers, in the shard, of documents whose id came earlier, as datatrove's second block wrote them."""
        from datatrove.utils.typeshelper import ExtensionHelperSD

        found: list[Any] = []
        for path in sorted((self.folders.work / "repeated").glob(f"*/{rank:05d}{ExtensionHelperSD.stage_2_duplicates}")):
            found.append(np.fromfile(path, "<u4"))
        return set(np.concatenate(found).tolist()) if found else set()

    def _rewrite(self, rank: int, repeated: set[int]) -> None:
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
                    quarantine.add(*_repeated_id(document))
        write_whole(self.folders.ledgers / f"{rank:05d}.json", recorder.finish({}))


def _location(source: str, file: str, problem: Problem) -> Location:
    return Location(source=source, file=file, line=problem.number, detail=problem.detail)


def _repeated_id(document: Document) -> tuple[Location, Problem]:
    match = re.fullmatch(r"(.*)[:#](\d+)", document.metadata["origin"], re.DOTALL)
    file, number = (match[1], int(match[2])) if match else (document.metadata["origin"], 0)
    detail = f"the id {document.id[:100]!r} stands in an earlier record"
    location = Location(source=document.metadata["source"], file=file, line=number, detail=detail)
    return location, Problem(number, "duplicate_id", detail, document.text[:SAMPLE].encode())


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, in place of what may have that name."""
    target.unlink(missing_ok=True)
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
