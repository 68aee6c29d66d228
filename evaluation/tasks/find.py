"""Tasks by their names: first what is known of them, cheaply, then the tasks themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.results import LeftOut
from evaluation.tasks.corpus import corpus_tasks
from evaluation.tasks.facts import GROUPS, Found, TaskFacts
from evaluation.tasks.hub import fetch_snapshot, find_snapshot
from evaluation.tasks.hub_tasks import HUB, HUB_GROUPS, HubTask
from evaluation.tasks.local import LOCAL, local_folder
from evaluation.tasks.settings import CorpusTaskSettings
from evaluation.tasks.sources import Sources
from evaluation.tasks.store import read_manifest
from mecellem.console import console
from mecellem.errors import UserError

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

DEFAULTS = CorpusTaskSettings()


class Tasks:
    """Names that were asked for, resolved in one cache folder. Nothing of mteb is imported until `open`.

    Local tasks that the cache lacks are built, tasks of the hub that it lacks are downloaded.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        corpus: Path | None,
        cache: Path,
        settings: CorpusTaskSettings = DEFAULTS,
        may_be_empty: bool = False,
    ) -> None:
        """`names`: tasks and groups (`GROUPS`), in the order of the table; what is named twice is there once.

        Raises `UserError` for a name that is unknown, with those that are near it; for a task that was asked for by its own
        name and cannot be had; and, unless it `may_be_empty`, for a group of which nothing can be had.
        """
        self.corpus, self.cache, self.settings, self.may_be_empty = corpus, Path(cache), settings, may_be_empty
        self._sources = Sources(self.cache / "packages")
        self._folders: dict[str, Path] = {}
        self._corpus_tasks: tuple[dict[str, Path], list[LeftOut]] | None = None
        facts: dict[str, TaskFacts] = {}
        left_out: dict[str, LeftOut] = {}
        if not names:
            raise UserError(f"no task is named: give tasks or groups ({', '.join(GROUPS)})")
        for name in names:
            if name in GROUPS:
                here, away = self._group(name)
                left_out |= {item.name: item for item in away}
            else:
                here = [self._one(name)]
            facts |= {item.name: item for item in here if item.name not in facts}
        self.found = Found(tuple(facts.values()), tuple(item for item in left_out.values() if item.name not in facts))

    def open(self, facts: TaskFacts) -> AbsTask:
        """The mteb task of one of `found.facts`; `task.facts` are these, and its rows are read by `load_data`."""
        if facts.name in HUB:
            from evaluation.tasks.hub_mteb import open_hub

            return open_hub(HUB[facts.name], self._folders[facts.name], facts)
        from evaluation.tasks.stored_mteb import open_stored

        return open_stored(self._folders[facts.name], facts)

    def folder(self, facts: TaskFacts) -> Path:
        """Where the data of one of `found.facts` lie."""
        return self._folders[facts.name]

    def _group(self, group: str) -> tuple[list[TaskFacts], list[LeftOut]]:
        if group == "corpus":
            folders, left_out = self._of_corpus()
            here = [self._stored(folder) for folder in folders.values()]
        elif group == "local":
            here, left_out = self._all_of(LOCAL)
        else:
            here, left_out = self._all_of([task.name for task in HUB_GROUPS[group]])
        if not here and not self.may_be_empty:
            raise UserError(f"no task of the group {group} can be had here, {left_out[0].name} for one: {left_out[0].reason}")
        return here, left_out

    def _all_of(self, names: Iterable[str]) -> tuple[list[TaskFacts], list[LeftOut]]:
        here: list[TaskFacts] = []
        left_out: list[LeftOut] = []
        for name in names:
            try:
                if name in HUB and not here and len(left_out) >= 2 and self._absent(HUB[name]):
                    raise UserError(left_out[-1].reason)  # there is no network: another time-out would tell no more
                here.append(self._one(name))
            except UserError as error:
                left_out.append(LeftOut(name=name, reason=str(error)))
        return here, left_out

    def _one(self, name: str) -> TaskFacts:
        if name in LOCAL:
            return self._stored(local_folder(LOCAL[name], self.cache, self._sources))
        if name in HUB:
            return self._hub(HUB[name])
        folders, left_out = self._of_corpus() if self.corpus and self.corpus.is_dir() else ({}, [])
        if name in folders:
            return self._stored(folders[name])
        for item in left_out:
            if item.name == name:
                raise UserError(f"{name} cannot be built from {self.corpus}: {item.reason}")
        raise UserError(f"{name!r} is no task and no group of tasks: {near(name, [*GROUPS, *LOCAL, *HUB, *folders])}")

    def _of_corpus(self) -> tuple[dict[str, Path], list[LeftOut]]:
        if self.corpus is None:
            raise UserError("the group corpus needs a corpus folder: add --corpus FOLDER")
        if self._corpus_tasks is None:
            self._corpus_tasks = corpus_tasks(self.corpus, self.cache, self.settings)
        return self._corpus_tasks

    def _stored(self, folder: Path) -> TaskFacts:
        stored = read_manifest(folder)
        assert stored is not None, folder
        self._folders[stored.facts.name] = folder
        return stored.facts

    def _absent(self, task: HubTask) -> bool:
        return find_snapshot(self.cache, task.repo, task.revision, task.configs) is None

    def _hub(self, task: HubTask) -> TaskFacts:
        try:
            snapshot, folder = fetch_snapshot(self.cache, task.repo, task.revision, task.configs)
        except UserError as error:
            raise UserError(
                f"{error}, and {self.cache / 'hub'} does not have it: run `mecellem evaluate prefetch --tasks {task.name} "
                f"--cache {self.cache}` where there is internet and copy that folder here"
            ) from error
        self._folders[task.name] = folder
        return TaskFacts(
            name=task.name,
            description=task.description or task.repo,
            category=task.category,
            main_metric=task.main_metric,
            revision=snapshot.commit,
            splits=task.splits,
            subset=task.subset,
            languages=task.languages,
            items=None,
            documents=None,
            source=task.repo,
            licence=task.licence,
        )


def of_corpus(names: Sequence[str]) -> list[str]:
    """Those of `names` that only a corpus folder can give: the group, and names that are of nothing else."""
    return [name for name in names if name == "corpus" or not (name in GROUPS or name in LOCAL or name in HUB)]


def near(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is unknown."""
    by_lower = {item.lower(): item for item in known}
    close = [by_lower[item] for item in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(close)}?" if close else f"groups are {', '.join(GROUPS)}"


def find_tasks(
    names: Sequence[str], *, corpus: Path | None = None, cache: Path, settings: CorpusTaskSettings = DEFAULTS
) -> list[AbsTask]:
    """The tasks and the tasks of groups, as mteb's (see `Tasks`); what of a group cannot be had is printed with the reason."""
    tasks = Tasks(names, corpus=corpus, cache=cache, settings=settings)
    for item in tasks.found.left_out:
        console().print(f"{item.name} is left out: {item.reason}", markup=False)
    return [tasks.open(facts) for facts in tasks.found.facts]
