"""What the tasks of a run read: fixed by the sources and `shard_size`, written down once, a file a task."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mecellem.errors import UserError
from preprocessing.pipeline.config import Corpus, Source
from preprocessing.pipeline.layout import write_whole
from preprocessing.sources.found import Part, Reading
from preprocessing.sources.planning import SourceFile, find_files, plan_tasks


@dataclass(frozen=True, slots=True)
class Task:
    """What one task reads: parts of files of one source."""

    reading: Reading
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Plan:
    """All tasks in order, and the digest of what they were planned from."""

    tasks: list[Task]
    digest: str

    @property
    def needs_line_numbers(self) -> bool:
        """Whether a part starts inside a file, at a line whose number is not known yet."""
        return any(part.first == 0 for task in self.tasks for part in task.parts)

    @property
    def has_own_ids(self) -> bool:
        """Whether records bring ids, which may repeat."""
        return any(task.reading.id_field for task in self.tasks)


def digest_of(value: Any) -> str:
    """SHA-256 of what JSON can say."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def make_plan(corpus: Corpus) -> Plan:
    """Look at the sources' files and plan the tasks. Raises `UserError` for files that are missing or of another kind."""
    tasks: list[Task] = []
    seen: list[Any] = []
    for source in corpus.file.sources:
        limits = corpus.limits_of(source.name)
        reading = _reading(source, limits.record_size, corpus.path.resolve().parent)
        if source.kind == "hub":
            from preprocessing.sources.hub import parts

            planned = [[part] for part in parts(source.paths[0], reading.options, corpus.file.shard_size)]
            seen.append([source.reading, limits.record_size, [[dataclasses.asdict(part) for part in task] for task in planned]])
        else:
            files = find_files(source.name, source.kind, source.paths)
            _check_ocr(reading)
            planned = plan_tasks(files, reading, corpus.file.shard_size)
            seen.append([source.reading, limits.record_size, [_seen(file) for file in files]])
        tasks += [Task(reading, task) for task in planned]
    return Plan(tasks, digest_of([corpus.file.shard_size, seen]))


def _reading(source: Source, record_size: int, folder: Path) -> Reading:
    kinds = {"text": source.text, "hub": source.hub, "pdf": source.pdf}
    options = kinds[source.kind].model_dump() if source.kind in kinds else {}
    if source.kind == "pdf":
        options["folder"] = str(folder)  # where a plug-in may lie
    return Reading(
        source=source.name,
        kind=source.kind,
        licence=source.licence,
        text_field=source.text_field,
        id_field=source.id_field,
        keep_fields=tuple(source.keep_fields),
        record_size=record_size,
        options=options,
    )


def _check_ocr(reading: Reading) -> None:
    if reading.kind == "pdf":
        from preprocessing.sources.pdf import ocr_function

        ocr_function(reading.options["ocr"], reading.options["languages"], reading.options["folder"])


def _seen(file: SourceFile) -> list[Any]:
    """By what a file is known again: hashes of terabytes of raw dumps would take longer than reading them."""
    return [file.path, file.size, file.changed]


def task_path(folder: Path, number: int) -> Path:
    """The file that says what a task reads."""
    return folder / f"{number:05d}.json"


def write_tasks(plan: Plan, folder: Path) -> None:
    """Write a file for each task."""
    for number, task in enumerate(plan.tasks):
        write_whole(task_path(folder, number), dataclasses.asdict(task))


def read_task(folder: Path, number: int) -> Task:
    """Read what a task reads. Raises `UserError` where the plan was removed."""
    path = task_path(folder, number)
    try:
        fields = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        raise UserError(f"{path} is missing or broken: remove {folder.parent} and run the same command again") from None
    reading = Reading(**{**fields["reading"], "keep_fields": tuple(fields["reading"]["keep_fields"])})
    return Task(reading, [Part(**part) for part in fields["parts"]])
