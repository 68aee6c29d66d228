"""The stages of a run with their digests: what is done, what is under way, and what a change sends back to the start."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mecellem.errors import UserError
from preprocessing.pipeline import read
from preprocessing.pipeline.config import Corpus, Limits
from preprocessing.pipeline.layout import RunFolders, StageFolders, shard_paths, sweep, write_whole
from preprocessing.pipeline.ledger import TaskLedger, most_common, sum_ledgers
from preprocessing.pipeline.phases import Phase
from preprocessing.pipeline.plan import Plan, digest_of, write_tasks
from preprocessing.pipeline.registry import STAGES
from preprocessing.sources.found import PROBLEMS


class Done(BaseModel):
    """`done.json`: a stage is complete. `seconds` is what its tasks took, one after another."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    digest: str
    tasks: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of this run. `digest` is of its settings, its input and the version of its code."""

    name: str
    folders: StageFolders
    digest: str
    settings: Any
    phases: Callable[[], list[Phase]]

    @property
    def is_done(self) -> bool:
        """Whether the stage is complete under these very settings."""
        done = read_done(self.folders)
        return done is not None and done.digest == self.digest


def read_done(folders: StageFolders) -> Done | None:
    """What `done.json` says; None where there is none, or none that can be read."""
    try:
        return Done.model_validate_json((folders.root / "done.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def steps_of(corpus: Corpus, plan: Plan) -> list[Step]:
    """The stages in order, reading first."""
    run, tasks = RunFolders(corpus.out), len(plan.tasks)
    folders = run.stage(0, read.NAME, None, tasks)
    digest = digest_of([read.NAME, read.VERSION, plan.digest])
    settings: Any = {"shard_size": corpus.file.shard_size, "sources": [source.reading for source in corpus.file.sources]}
    steps = [Step(read.NAME, folders, digest, settings, lambda: read.phases(plan, run.stage(0, read.NAME, None, tasks)))]
    for number, stage in enumerate(corpus.stages, start=1):
        kind, before = STAGES[stage.name], folders
        folders = run.stage(number, stage.name, before, tasks)
        settings = stage.settings.model_dump(mode="json")
        digest = digest_of([stage.name, kind.version, settings, _named_files(settings), digest])
        steps.append(Step(stage.name, folders, digest, settings, _phases_of(stage.name, stage.settings, folders)))
    return steps


def _named_files(settings: Any) -> list[Any]:
    """The files and folders that settings name (models, evaluation sets), by path, size and time of change."""
    if isinstance(settings, dict):
        return [found for value in settings.values() for found in _named_files(value)]
    if isinstance(settings, list):
        return [found for value in settings for found in _named_files(value)]
    if not isinstance(settings, str) or not settings or not Path(settings).exists():
        return []
    path = Path(settings)
    files = [path] if path.is_file() else sorted(item for item in path.iterdir() if item.is_file())
    return [[str(item), item.stat().st_size, item.stat().st_mtime_ns] for item in files]


def _phases_of(name: str, settings: BaseModel, folders: StageFolders) -> Callable[[], list[Phase]]:
    return lambda: STAGES[name].phases(settings, folders)


def begin(steps: list[Step], plan: Plan) -> list[str]:
    """Make the folders ready for the stages that are not done; returns sentences about work that has to be done again.

    What was begun under other settings, other input or another version of the code is removed, and so is everything
    after it; what was begun under the same goes on.
    """
    said: list[str] = []
    root = steps[0].folders.root.parent
    there = sorted(item for item in root.iterdir() if item.is_dir()) if root.is_dir() else []
    first = next(
        (number for number, step in enumerate(steps) if there[number : number + 1] != [step.folders.root] or _changed(step)),
        None,
    )
    if first is not None and there[first:]:
        again = [path.name for path in there[first:]]
        why = _why(steps[first], there[first]) if first < len(steps) else ""
        said.append(f"{why}: removed {', '.join(again)}")
    for path in there[first:] if first is not None else there[len(steps) :]:
        for name in ("done.json", "begun.json"):  # first, so that what a killed removal leaves is never taken for whole
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path)
    for step in steps:
        if not step.is_done:
            _begin(step, plan)
    return said


def _changed(step: Step) -> bool:
    begun = _begun(step.folders)
    return begun is None or begun["digest"] != step.digest


def _begun(folders: StageFolders) -> dict[str, Any] | None:
    try:
        return json.loads((folders.root / "begun.json").read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _why(step: Step, there: Path) -> str:
    if there != step.folders.root:
        return f"the stages changed from {there.name} on"
    begun = _begun(step.folders)
    if begun is None:
        return f"{step.name} was only prepared"
    if begun["settings"] != step.settings:
        return f"the settings of {step.name} changed"
    if step.name == read.NAME:
        return "the files of the sources changed"
    return f"the code of {step.name}, or what it reads, changed"


def _begin(step: Step, plan: Plan) -> None:
    if step.folders.root.exists():
        sweep(step.folders.root)
    if _begun(step.folders) is None:
        if step.name == read.NAME:
            write_tasks(plan, step.folders.input)
        write_whole(step.folders.root / "begun.json", {"digest": step.digest, "settings": step.settings})
    elif step.name == read.NAME:
        _forget_missing(step.folders)


def _forget_missing(folders: StageFolders) -> None:
    """Tasks that missed a file are done again: perhaps it is back."""
    raw = folders.work / "raw" / "ledger"
    ledgers = raw if raw.is_dir() else folders.ledgers
    again = [path.stem for path in sorted(ledgers.glob("*.json")) if b'"missing_file"' in path.read_bytes()]
    for phase in sorted((folders.root / "logs").iterdir()) if again and (folders.root / "logs").is_dir() else []:
        marks = phase / "completions"
        whole = phase.name in ("find", "ids", "numbers")
        for mark in sorted(marks.iterdir()) if marks.is_dir() else []:
            if whole or mark.name in again:
                mark.unlink()


def finish(folders: StageFolders, digest: str, limits: dict[str, Limits]) -> TaskLedger:
    """Sum the ledgers, hold them against the limits, write `done.json` last and drop what only the phases needed.

    Raises `UserError` when a task is missing or a limit is exceeded.
    """
    shard_paths(folders)
    ledger = sum_ledgers(folders.ledgers / f"{number:05d}.json" for number in range(folders.tasks))
    if folders.name == read.NAME:
        check_limits(ledger, limits, folders.quarantine)
    write_whole(folders.root / "ledger.json", ledger)
    seconds = round(sum(_seconds(path) for path in folders.root.glob("logs/*/stats/*.json")), 3)
    shutil.rmtree(folders.work, ignore_errors=True)
    write_whole(folders.root / "done.json", Done(stage=folders.name, digest=digest, tasks=folders.tasks, seconds=seconds))
    return ledger


def _seconds(path: Path) -> float:
    times = (block["time_stats"] for block in json.loads(path.read_bytes()))
    return sum(time["total"] for time in times if time)  # datatrove writes 0 for a block that measured nothing


def check_limits(ledger: TaskLedger, limits: dict[str, Limits], quarantine: Path) -> None:
    """Raise `UserError` when more of a source is broken than its limits allow."""
    for name, source in ledger.sources.items():
        limit, missing = limits[name], source.quarantined.get("missing_file", 0)
        broken = sum(source.quarantined.values()) - missing
        total = broken + source.entered.documents
        where = next(
            (f" ({place.file}: {place.detail})" for place in ledger.locations.get("missing_file", []) if place.source == name),
            "",
        )
        if missing > limit.missing_files:
            raise UserError(
                f"source {name}: {missing:,} files vanished or cannot be opened{where}: bring them back and run the same "
                f"command again, or raise `limits: missing_files` (now {limit.missing_files:,})"
            )
        if not broken or (broken <= limit.count and broken <= limit.share * total):
            continue
        reason, count = most_common({key: value for key, value in source.quarantined.items() if key != "missing_file"})[0]
        example = next((place for place in ledger.locations[reason] if place.source == name), None)
        at = f", such as {example.file}, line {example.line}" if example else ""
        raise UserError(
            f"source {name}: {broken:,} of {total:,} records cannot be read, most of them ({count:,}) because "
            f"{PROBLEMS[reason]}{at}: all are listed in {quarantine}; repair the source, or raise `limits: share` "
            f"(now {limit.share:g}) and `limits: count` (now {limit.count:,})"
        )


def completed(folders: StageFolders) -> int:
    """How many of a stage's shards are there."""
    if not folders.ledgers.is_dir():
        return 0
    return sum(entry.name.endswith(".json") and not entry.name.startswith(".") for entry in os.scandir(folders.ledgers))
