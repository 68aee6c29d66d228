"""`mecellem prepare status`: stage by stage, what is done, kept, dropped and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from mecellem.console import console, human_time
from mecellem.errors import UserError
from mecellem.flags import parse_and_call

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mecellem.manifest import CorpusManifest
    from preprocessing.pipeline.config import Corpus
    from preprocessing.pipeline.layout import StageFolders
    from preprocessing.pipeline.ledger import TaskLedger

_WHY = 4  # reasons shown in the table
_UNSEEN_WIDTH = 240  # columns where no terminal bounds a line: for files and pipes a stage is one line


@dataclass(frozen=True, slots=True)
class StageState:
    """A stage as it is on disk: how many of its tasks are done, what happened in these, and how long that took.

    `seconds` is None until the stage is complete.
    """

    name: str
    folders: StageFolders
    ready: int
    ledger: TaskLedger
    seconds: float | None


def stage_states(corpus: Corpus) -> list[StageState]:
    """The stages of a run, in order, as they are now. Raises `UserError` where nothing was run yet.

    Only the run's folder is looked at: sources may be gone, jobs may be under way.
    """
    from preprocessing.pipeline import read
    from preprocessing.pipeline.layout import RunFolders
    from preprocessing.pipeline.steps import completed, read_done

    run = RunFolders(corpus.out)
    names = [read.NAME, *(stage.name for stage in corpus.stages)]
    tasks_folder = run.stage(0, read.NAME, None, 0).input
    tasks = sum(1 for _ in tasks_folder.glob("*.json")) if tasks_folder.is_dir() else 0
    if not tasks:
        raise UserError(f"nothing was run in {corpus.out} yet: start with `mecellem prepare run {corpus.path}`")
    states: list[StageState] = []
    folders = None
    for number, name in enumerate(names):
        folders = run.stage(number, name, folders, tasks)
        done = read_done(folders)
        seconds = None if done is None else done.seconds
        states.append(StageState(name, folders, completed(folders), _ledger(folders, done is not None), seconds))
    return states


def _ledger(folders: StageFolders, done: bool) -> TaskLedger:
    from preprocessing.pipeline.ledger import TaskLedger, read_ledger, sum_ledgers

    if done:
        return read_ledger(folders.root / "ledger.json")
    if not folders.ledgers.is_dir():
        return TaskLedger()
    return sum_ledgers(sorted(path for path in folders.ledgers.glob("*.json") if not path.name.startswith(".")))


def written_tokens(corpus: Corpus) -> dict[str, CorpusManifest]:
    """The manifests of the token files that are there, by their names."""
    from mecellem.manifest import manifest_path, read_manifest
    from preprocessing.pipeline.layout import RunFolders

    settings = corpus.file.tokenize
    if settings is None:
        return {}
    names = [source.name for source in corpus.file.sources] if settings.per_source else ["corpus"]
    prefixes = {name: RunFolders(corpus.out).tokens / name for name in names}
    return {name: read_manifest(prefix) for name, prefix in prefixes.items() if manifest_path(prefix).exists()}


def status(corpus: tyro.conf.Positional[Path], examples: bool = False) -> None:
    """Show a run stage by stage: tasks done, documents and words kept, and why the others were not.

    Args:
        corpus: YAML file that `mecellem prepare run` was given.
        examples: also show documents that were dropped and records that could not be read, with where they stand.
    """
    from preprocessing.pipeline.config import read_corpus

    settings = read_corpus(corpus)
    states = stage_states(settings)
    out = console()
    if not out.is_terminal:
        out.width = _UNSEEN_WIDTH
    out.print(_table(states))
    for name, manifest in written_tokens(settings).items():
        out.print(f"tokens  {name}: {manifest.documents:,} documents, {manifest.tokens:,} tokens", markup=False)
    for state in states:
        _print_examples(out, state, examples)


def _table(states: list[StageState]) -> Table:
    from rich.table import Table

    from preprocessing.pipeline.ledger import most_common

    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for heading in ("tasks", "in", "kept", "kept words", "took"):
        table.add_column(heading, justify="right")
    table.add_column("why not (documents)", overflow="fold")
    for state in states:
        whole = state.ledger.total()
        why = {reason: tally.documents for reason, tally in whole.dropped.items()} | whole.quarantined
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in most_common(why, _WHY))
        hidden = len(why) - _WHY
        changed = ", ".join(f"{what} {count:,}" for what, count in most_common(state.ledger.changed, _WHY))
        table.add_row(
            state.name,
            f"{state.ready:,}/{state.folders.tasks:,}",
            f"{whole.entered.documents + sum(whole.quarantined.values()):,}",
            f"{whole.kept.documents:,}",
            f"{whole.kept.words:,}",
            "" if state.seconds is None else human_time(state.seconds),
            (reasons + (f", {hidden} more" if hidden > 0 else "")) or (f"changed {changed}" if changed else ""),
        )
    return table


def _print_examples(out: Console, state: StageState, wanted: bool) -> None:
    from preprocessing.pipeline.ledger import EXAMPLES

    ledger = state.ledger
    if not wanted or not (ledger.locations or ledger.examples):
        return
    out.rule(state.name, align="left")
    for reason, locations in sorted(ledger.locations.items()):
        out.print(reason, markup=False)
        for place in locations[:EXAMPLES]:
            where = f"line {place.line}: " if place.line else ""
            out.print(f"  {place.file}, {where}{place.detail}", markup=False)
    for reason, examples in sorted(ledger.examples.items()):
        out.print(reason, markup=False)
        for example in examples:
            measures = ", ".join(f"{name} {value:g}" for name, value in sorted(example.measures.items()))
            text = " ".join(example.text.split())[:100]
            out.print(f"  {example.origin}: {text}{f' ({measures})' if measures else ''}", markup=False)


def main(argv: Sequence[str]) -> None:
    """Parse flags and show."""
    parse_and_call(status, argv, "mecellem prepare status")
