"""The stages of a run with their digests: what is done, what is under way, and what a change sends back to the start."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from preprocessing.pipeline import read
from preprocessing.pipeline.config import Corpus, Limits
from preprocessing.pipeline.layout import RunFolders, StageFolders, refuse_foreign, shard_paths, sweep, write_whole
from preprocessing.pipeline.ledger import TaskLedger, sum_ledgers
from preprocessing.pipeline.limits import check_fields, check_limits
from preprocessing.pipeline.phases import Phase
from preprocessing.pipeline.plan import Plan, digest_of, write_tasks
from preprocessing.pipeline.registry import STAGES


class Done(BaseModel):
    """`done.json`: a stage is complete. `seconds` is what its tasks took, one after another.

    `freed`: its shards are gone, because the stage after it is complete and the YAML file says `keep_shards: last`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    digest: str
    tasks: int
    seconds: float
    freed: bool = False


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

    @property
    def is_begun(self) -> bool:
        """Whether it was begun under these very settings, and may be done."""
        begun = read_begun(self.folders)
        return begun is not None and begun["digest"] == self.digest

    @property
    def is_freed(self) -> bool:
        """Whether its shards were freed."""
        done = read_done(self.folders)
        return done is not None and done.freed


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
    settings = settings_of(corpus, 0)
    steps = [Step(read.NAME, folders, digest, settings, lambda: read.phases(plan, run.stage(0, read.NAME, None, tasks)))]
    for number, stage in enumerate(corpus.stages, start=1):
        kind, before = STAGES[stage.name], folders
        folders = run.stage(number, stage.name, before, tasks)
        settings = settings_of(corpus, number)
        digest = digest_of([stage.name, kind.version, settings, _named_files(settings), digest])
        steps.append(Step(stage.name, folders, digest, settings, _phases_of(stage.name, stage.settings, folders)))
    return steps


def settings_of(corpus: Corpus, number: int) -> Any:
    """What the YAML file says of the stage of that number, as `begun.json` keeps it; 0 is reading."""
    if number == 0:
        sources = [
            source.reading | {"record_size": corpus.limits_of(source.name).record_size} for source in corpus.file.sources
        ]
        return {"shard_size": corpus.file.shard_size, "sources": sources}
    return corpus.stages[number - 1].settings.model_dump(mode="json")


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
    after it; what was begun under the same goes on. Where the shards that would be read were freed, so are their stages.
    Raises `UserError`, and removes nothing, where a folder holds what no run has written.
    """
    said: list[str] = []
    there, first = _there(steps), _first_changed(steps)
    start = _first_with_input(steps, first)
    for path in there[start:]:
        refuse_foreign(path)
    if there[start:]:
        why = _why(steps[first], there[first]) if there[first:] and first < len(steps) else "the stages after it changed"
        why = f"{steps[first - 1].name} is the last stage now" if first == len(steps) else why
        because = " (keep_shards: last had freed the shards in between)" if start < first else ""
        said.append(f"{why}: removed {', '.join(path.name for path in there[start:])}{because}")
    for path in there[start:]:
        for name in ("done.json", "begun.json"):  # first, so that what a killed removal leaves is never taken for whole
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path)
    for step in steps:
        if not step.is_done:
            _begin(step, plan)
        elif step.folders.work.exists():  # the run was killed just after the stage was done
            shutil.rmtree(step.folders.work)
    return said


def steps_to_do(steps: list[Step]) -> list[Step]:
    """The stages that `begin` will find to be done, or done again; nothing is changed."""
    start = _first_with_input(steps, _first_changed(steps))
    return [step for number, step in enumerate(steps) if number >= start or not step.is_done]


def _there(steps: list[Step]) -> list[Path]:
    root = steps[0].folders.root.parent
    return sorted(item for item in root.iterdir() if item.is_dir()) if root.is_dir() else []


def _first_changed(steps: list[Step]) -> int:
    """The number of the first stage that is not there as it was begun; that of stages where all are."""
    there = _there(steps)
    changed = (there[number : number + 1] != [step.folders.root] or not step.is_begun for number, step in enumerate(steps))
    return next((number for number, other in enumerate(changed) if other), len(steps))


def _first_with_input(steps: list[Step], first: int) -> int:
    """The stage to begin with when those from `first` on are to be done, or tokens to be written of the last one's shards."""
    while first and steps[first - 1].is_freed:
        first -= 1
    return first


def free_shards(folders: StageFolders) -> None:
    """Remove the shards of a complete stage that no other reads any more; ledgers and quarantine stay."""
    done = read_done(folders)
    assert done is not None, folders
    if not done.freed:  # said first: what a killed removal leaves is never taken for whole
        write_whole(folders.root / "done.json", done.model_copy(update={"freed": True}))
    shutil.rmtree(folders.shards, ignore_errors=True)


def free_what_was_read(steps: list[Step]) -> None:
    """Remove the shards of every stage that is followed by a complete one."""
    for before, after in pairwise(steps):
        if before.is_done and after.is_done:
            free_shards(before.folders)


def read_begun(folders: StageFolders) -> dict[str, Any] | None:
    """What `begun.json` says; None where there is none."""
    try:
        return json.loads((folders.root / "begun.json").read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _why(step: Step, there: Path) -> str:
    if there != step.folders.root:
        return f"the stages changed from {there.name} on"
    begun = read_begun(step.folders)
    if begun is None:
        return f"{step.name} was only prepared"
    if begun["settings"] != step.settings:
        return f"the settings of {step.name} changed ({', '.join(_different(begun['settings'], step.settings))})"
    if step.name == read.NAME:
        return "the files of the sources changed"
    return f"the code of {step.name}, or what it reads, changed"


def _different(before: Any, now: Any, name: str = "") -> list[str]:
    """The names of settings that are not the same in both, each once."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = [_different(before.get(key), now.get(key), key) for key in sorted(before.keys() | now.keys())]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        found = [_different(*pair, name) for pair in zip(before, now, strict=True)]
    else:
        return [] if before == now else [name]
    return list(dict.fromkeys(key for keys in found for key in keys))


def _begin(step: Step, plan: Plan) -> None:
    if step.folders.root.exists():
        sweep(step.folders.root)
    if read_begun(step.folders) is None:
        if step.name == read.NAME:
            write_tasks(plan, step.folders.input)
        write_whole(step.folders.root / "begun.json", {"digest": step.digest, "settings": step.settings})
    elif step.name == read.NAME:
        _forget_missing(step.folders)


def _forget_missing(folders: StageFolders) -> None:
    """Tasks that missed a file, or met a damaged one, are done again: perhaps it is back, or whole."""
    raw = folders.work / "raw" / "ledger"
    ledgers = raw if raw.is_dir() else folders.ledgers
    found = {path.stem: path.read_bytes() for path in sorted(ledgers.glob("*.json"))}
    again = [name for name, text in found.items() if b'"missing_file"' in text or b'"damaged_file"' in text]
    for phase in sorted((folders.root / "logs").iterdir()) if again and (folders.root / "logs").is_dir() else []:
        marks = phase / "completions"
        whole = phase.name in ("find", "partners", "ids", "numbers")
        for mark in sorted(marks.iterdir()) if marks.is_dir() else []:
            if whole or mark.name in again:
                mark.unlink()


def finish(folders: StageFolders, digest: str, limits: dict[str, Limits]) -> TaskLedger:
    """Sum the ledgers, hold them against the limits, write `done.json` and drop what only the phases needed.

    Raises `UserError` when a task is missing, a limit is exceeded, or a field to be kept is a mistyped one.
    """
    shard_paths(folders)
    ledger = sum_ledgers(folders.ledgers / f"{number:05d}.json" for number in range(folders.tasks))
    if folders.name == read.NAME:
        check_limits(ledger, limits, folders.quarantine)
        check_fields(ledger)
    write_whole(folders.root / "ledger.json", ledger)
    seconds = round(sum(_seconds(path) for path in folders.root.glob("logs/*/stats/*.json")), 3)
    write_whole(folders.root / "done.json", Done(stage=folders.name, digest=digest, tasks=folders.tasks, seconds=seconds))
    shutil.rmtree(folders.work, ignore_errors=True)  # only now: a stage that is not done may look at it again
    return ledger


def _seconds(path: Path) -> float:
    times = (block["time_stats"] for block in json.loads(path.read_bytes()))
    return sum(time["total"] for time in times if time)  # datatrove writes 0 for a block that measured nothing


def completed(folders: StageFolders) -> int:
    """How many of a stage's shards are there."""
    ledgers = folders.ledgers_so_far
    if not ledgers.is_dir():
        return 0
    return sum(entry.name.endswith(".json") and not entry.name.startswith(".") for entry in os.scandir(ledgers))
