"""One selection in progress: inputs that were checked, and the cache where finished parts are found again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evaluation.cache import Cache
from evaluation.encoders import EncoderSettings, SystemSource, find_source
from evaluation.encoders.source import Kind
from evaluation.leaderboard.measure import Measurement, OpenedTasks, all_versions, evaluate_system
from evaluation.results import LeftOut, Record
from evaluation.run_folder import list_checkpoints
from evaluation.selection.results import SystemScores
from evaluation.selection.settings import SelectionSettings
from evaluation.tasks.facts import TaskFacts
from evaluation.tasks.find import Tasks, of_corpus
from mecellem.content import source_sha256
from mecellem.errors import UserError
from mecellem.files import sha256_of
from megatron_recipes.run_folder import FILE, read_run
from post_training.contrastive.settings import ContrastiveSettings
from post_training.exports import checkpoint_fingerprint
from post_training.model_folder import pick_device
from post_training.pairs import PairSet, read_pairs
from preprocessing.corpus.document import Document
from preprocessing.corpus.read_split import read_split, split_sha256

RETRIEVAL = "retrieval"
SPLITS = ("train", "validation", "test")


class FolderFacts(Record):
    """A model's folder as it was made: `stamp` changes with names, sizes and times of its files."""

    stamp: str
    sha256: str
    weights_sha256: str


@dataclass(slots=True)
class TaskSet:
    """Tasks of retrieval from one split, opened where something has to be scored; those that cannot be had."""

    facts: list[TaskFacts]
    left_out: list[LeftOut]
    opened: OpenedTasks


@dataclass(slots=True)
class Work:
    """`board` scores systems and keeps the scores; `train` is read where crops of it are needed."""

    run: Path
    corpus: Path
    checkpoints: dict[int, Path]
    tokens_per_step: int | None
    settings: SelectionSettings
    budget: int
    data: PairSet | None
    splits: dict[str, str]
    board: Measurement
    device: str
    selection: TaskSet
    train: list[Document] = field(default_factory=list)

    @property
    def store(self) -> Cache:
        """Where everything is kept."""
        return self.board.store

    @property
    def recipe(self) -> ContrastiveSettings:
        """The post-training that every checkpoint gets."""
        return replace(self.settings.post_training, steps=self.budget)

    def train_documents(self) -> list[Document]:
        """The train split, read on first use: cached parts do not need it."""
        self.train = self.train or read_split(self.corpus, "train")
        return self.train

    def key(self, *rooms: str, **parts: Any) -> dict[str, Any]:
        """A cache key: `parts`, the kind of device and the versions (either may move a last digit), and the rooms' code."""
        return {
            **parts,
            "device": self.device.split(":")[0],
            "versions": self.board.versions,
            "code": source_sha256(*rooms),
        }

    def source(self, name: str, folder: Path, kind: Kind) -> SystemSource:
        """A folder that was made here, under the name that tables call it. Raises `UserError` where it was changed since."""
        return SystemSource(name, str(folder), kind, folder, self.facts(folder).sha256)

    def facts(self, folder: Path, thorough: bool = False) -> FolderFacts:
        """What a made folder was when it was made; its bytes are read again where times differ, or if `thorough`."""
        kept = self.store.find("folder", [folder.name], FolderFacts)
        if kept is not None and kept.stamp == checkpoint_fingerprint(folder) and not thorough:
            return kept
        found = folder_facts(folder)
        if kept is not None and (kept.sha256, kept.weights_sha256) != (found.sha256, found.weights_sha256):
            raise UserError(
                f"{folder} was changed after it was made, so its scores are not those of the run: remove the folder and run "
                "the same command again"
            )
        if kept != found:
            self.store.keep("folder", [folder.name], found)
        return found

    def made(self, what: str, parts: Any, make: Callable[[Path], object]) -> Path:
        """A model's folder in the cache, made once, with its facts."""

        def make_and_note(folder: Path) -> None:
            make(folder)
            self.store.keep("folder", [folder.name], folder_facts(folder))

        return self.store.make_folder(what, parts, make_and_note)

    def scores(self, source: SystemSource, tasks: TaskSet) -> SystemScores:
        """A system's scores on all of `tasks`, from the cache as far as they are there."""
        found = evaluate_system(self.board, source, tasks.facts, tasks.opened).tasks
        return system_scores(found)


def system_scores(results: dict[str, Any]) -> SystemScores:
    """Results by task, and their mean."""
    scores = SystemScores(tasks=results, mean=0.0)
    parts = [sum(part) / len(part) for part in scores.samples()]
    return scores.model_copy(update={"mean": sum(parts) / len(parts)})


def folder_facts(folder: Path) -> FolderFacts:
    """Read all of a folder's files that vectors depend on."""
    return FolderFacts(
        stamp=checkpoint_fingerprint(folder),
        sha256=find_source(str(folder)).sha256,
        weights_sha256=sha256_of(folder / "model.safetensors"),
    )


def open_work(
    run: Path,
    corpus: Path,
    cache: Path,
    settings: SelectionSettings,
    budget: int,
    tasks: Sequence[str],
    steps: Sequence[int],
    data: Sequence[str],
    columns: Sequence[str],
    split: str,
    device: str,
) -> Work:
    """Check all inputs before any work. Raises `UserError`."""
    if (run / "config.json").is_file() and not (run / FILE).is_file():
        raise UserError(
            f"{run} is a model, not a run: `mecellem evaluate {run}` and `mecellem evaluate fill-mask {run}` measure one model"
        )
    recorded = read_run(run)
    if recorded.get("curriculum") is not None:
        raise UserError(
            f"{run} trained a decoder, which fills no masks: use `mecellem evaluate perplexity` on its checkpoints or exports"
        )
    if budget < 0:
        raise UserError(f"--budget {budget} must be at least 0 (0: no post-training, mean-pooled retrieval chooses)")
    if columns and not data:
        raise UserError("--columns is for --data: documents have no columns to choose from")
    checkpoints = chosen_steps(run, list_checkpoints(run), steps)
    pairs = read_pairs(data, columns, split) if data else None
    if budget:
        settings.post_training.check_source(crops=pairs is None)
        settings.post_training.check_negatives(pairs.negatives if pairs else 0)
    place = pick_device(device)
    board = Measurement(
        EncoderSettings(max_seq_length=settings.max_seq_length), place, Cache(cache / "evaluation"), all_versions()
    )
    splits = {name: split_sha256(corpus, name) for name in SPLITS}
    found = Tasks(tasks, corpus=corpus, cache=cache, settings=settings.retrieval, may_be_empty=True)
    return Work(
        run=run,
        corpus=corpus,
        checkpoints=checkpoints,
        tokens_per_step=recorded.get("tokens_per_step"),
        settings=settings,
        budget=budget,
        data=pairs,
        splits=splits,
        board=board,
        device=place,
        selection=task_set(found),
    )


def chosen_steps(run: Path, checkpoints: dict[int, Path], steps: Sequence[int]) -> dict[int, Path]:
    """The checkpoints that --steps names, in order of steps; all unless it names any."""
    for step in steps:
        if step not in checkpoints:
            there = ", ".join(map(str, checkpoints))
            raise UserError(f"--steps {step}: {run} has no checkpoint of that step; its checkpoints are {there}")
        if list(steps).count(step) > 1:
            raise UserError(f"--steps names {step} twice: name each checkpoint once")
    return {step: path for step, path in checkpoints.items() if not steps or step in steps}


def task_set(tasks: Tasks, names: Sequence[str] | None = None) -> TaskSet:
    """The tasks that can choose: of retrieval; of `names` alone where they are given."""
    left_out = list(tasks.found.left_out)
    kept = []
    for facts in tasks.found.facts:
        if names is not None and facts.name not in names:
            continue
        if facts.category == RETRIEVAL:
            kept.append(facts)
        else:
            left_out.append(
                LeftOut(name=facts.name, reason=f"it is {facts.category}, and checkpoints are compared by retrieval")
            )
    return TaskSet(kept, left_out, OpenedTasks(tasks))


def test_tasks(work: Work, asked: Sequence[str], cache: Path) -> TaskSet:
    """The tasks from the corpus among those `asked` for, built from its test split; other tasks have no other split."""
    names = of_corpus(asked)
    settings = replace(work.settings.retrieval, split="test")
    if not names:
        return TaskSet([], [], work.selection.opened)
    found = Tasks(["corpus"], corpus=work.corpus, cache=cache, settings=settings, may_be_empty=True)
    return task_set(found, None if "corpus" in names else names)
