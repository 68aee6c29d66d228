"""`mecellem prepare status`: stage by stage, what is done, kept, dropped and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from mecellem.console import console, heading, human_time
from mecellem.errors import UserError
from mecellem.flags import parse_and_call

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from preprocessing.pipeline.config import Corpus
    from preprocessing.pipeline.layout import StageFolders
    from preprocessing.pipeline.ledger import TaskLedger

_NOT_ASKED_FOR = " (of older settings: the YAML file asks for no such tokens now; {then})"
_OLDER = " (of an earlier run of other settings or sources; the next run makes them again)"
_WHY = 4  # reasons shown in the table


@dataclass(frozen=True, slots=True)
class StageState:
    """A stage as it is on disk: how many of its tasks are done, what happened in these, and how long that took.

    `seconds` and `digest` are None until the stage is complete; `freed`: its shards are gone, as `keep_shards: last` asks;
    `older`: it was begun under other settings of itself, or of a stage before, than the YAML file has now.
    """

    name: str
    folders: StageFolders
    ready: int
    ledger: TaskLedger
    seconds: float | None
    freed: bool
    digest: str | None
    older: bool


def stage_states(corpus: Corpus) -> list[StageState]:
    """The stages of a run, in order, as they are now. Raises `UserError` where nothing was run yet.

    Only the run's folder is looked at: sources may be gone, jobs may be under way.
    """
    from preprocessing.pipeline import read
    from preprocessing.pipeline.layout import RunFolders
    from preprocessing.pipeline.steps import completed, read_begun, read_done, settings_of

    run = RunFolders(corpus.out)
    names = [read.NAME, *(stage.name for stage in corpus.stages)]
    tasks_folder = run.stage(0, read.NAME, None, 0).input
    tasks = sum(1 for _ in tasks_folder.glob("*.json")) if tasks_folder.is_dir() else 0
    if not tasks:
        removed = ", or OUT/stages was removed, which has what this shows" if run.tokens.is_dir() else ""
        raise UserError(f"nothing was run in {corpus.out} yet{removed}: start with `mecellem prepare run {corpus.path}`")
    states: list[StageState] = []
    folders, older = None, False
    for number, name in enumerate(names):
        folders = run.stage(number, name, folders, tasks)
        done = read_done(folders)
        seconds = None if done is None else done.seconds
        ledger, freed = _ledger(folders, done is not None), done is not None and done.freed
        begun, wanted = read_begun(folders), settings_of(corpus, number)
        older = begun is not None and (older or begun["settings"] != wanted)
        digest = None if done is None else done.digest
        states.append(StageState(name, folders, completed(folders), ledger, seconds, freed, digest, older))
    return states


def _ledger(folders: StageFolders, done: bool) -> TaskLedger:
    from preprocessing.pipeline.ledger import read_ledger, sum_ledgers

    if done:
        return read_ledger(folders.root / "ledger.json")
    ledgers = folders.ledgers_so_far
    return sum_ledgers(sorted(path for path in ledgers.glob("*.json") if not path.name.startswith(".")))


def token_lines(corpus: Corpus, states: list[StageState]) -> list[str]:
    """A line for each corpus of tokens; they are told of as older ones where the last stage has changed since."""
    from preprocessing.pipeline.tokenize import written_tokens

    manifests = written_tokens(corpus)
    older = "" if has_current_tokens(corpus, states) else _OLDER
    lines = [
        f"tokens  {name}: {manifest.documents:,} documents, {manifest.tokens:,} tokens{older}"
        for name, manifest in manifests.items()
    ]
    return lines + [f"tokens  {sentence}" for sentence in older_token_lines(corpus)]


def older_token_lines(corpus: Corpus) -> list[str]:
    """A sentence for each corpus of tokens that an earlier run wrote and the YAML file does not ask for any more."""
    from preprocessing.pipeline.tokenize import older_tokens

    then = "the next run removes them" if corpus.file.tokenize else "they stay until you remove them"
    return [
        f"{name}: {manifest.documents:,} documents, {manifest.tokens:,} tokens{_NOT_ASKED_FOR.format(then=then)}"
        for name, manifest in older_tokens(corpus).items()
    ]


def has_current_tokens(corpus: Corpus, states: list[StageState]) -> bool:
    """Whether the tokens that are there are of these stages and of what the YAML file says now."""
    from preprocessing.pipeline.tokenize import are_current

    return not any(state.older for state in states) and are_current(corpus, states[-1].digest)


def status(corpus: tyro.conf.Positional[Path], examples: bool = False) -> None:
    """Show a run stage by stage: tasks done, documents and words kept, and why the others were not.

    Args:
        corpus: YAML file that `mecellem prepare run` was given.
        examples: also show documents that were dropped, groups of duplicates and records that could not be read, with
            where they stand.
    """
    from preprocessing.pipeline.config import read_corpus
    from preprocessing.pipeline.hints import hints
    from preprocessing.pipeline.limits import field_notes

    settings = read_corpus(corpus)
    states = stage_states(settings)
    out = console()
    out.print(_table(states))
    for line in token_lines(settings, states):
        out.print(line, markup=False)
    if older := [state.name for state in states if state.older]:
        out.print(
            f"older   {', '.join(older)}: settings changed since, theirs or of a stage before; the next run does them again",
            markup=False,
        )
    freed = [state.name for state in states if state.freed]
    if freed:
        out.print(f"freed   the shards of {', '.join(freed)} (keep_shards: last)", markup=False)
    for sentence in field_notes(states[0].ledger):
        out.print(f"note    {sentence}", markup=False)
    for state in states:
        for sentence in hints(state.name, state.ledger, settings.path):
            out.print(f"hint    {sentence}", markup=False)
    for state in states:
        _print_examples(out, state, examples)


def counts_of(counts: dict[str, int], most: int) -> str:
    """The largest counts with their names, at most `most`, and how many more names there are."""
    from preprocessing.pipeline.ledger import most_common

    hidden = len(counts) - most
    shown = [f"{name} {count:,}" for name, count in most_common(counts, most)]
    return ", ".join([*shown, f"{hidden:,} more"] if hidden > 0 else shown)


def _table(states: list[StageState]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for head in ("tasks", "in", "kept", "kept words", "took"):
        table.add_column(head, justify="right")
    table.add_column("why not, and what else", overflow="fold")
    for state in states:
        whole = state.ledger.total()
        why = {reason: tally.documents for reason, tally in whole.dropped.items()} | whole.quarantined
        notes = [counts_of(why, _WHY)] if why else []
        for what, counts in (("skipped", whole.skipped), ("changed", state.ledger.changed), ("noted", state.ledger.noted)):
            if counts:
                notes.append(f"{what} {counts_of(counts, _WHY)}")
        table.add_row(
            state.name,
            f"{state.ready:,}/{state.folders.tasks:,}",
            f"{whole.came_in:,}",
            f"{whole.kept.documents:,}",
            f"{whole.kept.words:,}",
            "" if state.seconds is None else human_time(state.seconds),
            "; ".join(notes),
        )
    return table


def _print_examples(out: Console, state: StageState, wanted: bool) -> None:
    from preprocessing.pipeline.ledger import EXAMPLES

    ledger = state.ledger
    if not wanted or not (ledger.locations or ledger.examples or ledger.largest):
        return
    heading(out, state.name)
    for reason, locations in sorted(ledger.locations.items()):
        out.print(reason, markup=False)
        for place in locations[:EXAMPLES]:
            where = f"line {place.line}: " if place.line else ""
            out.print(f"  {place.file}, {where}{place.detail}", markup=False)
    for reason, examples in sorted(ledger.examples.items()):
        out.print(reason, markup=False)
        for example in examples:
            notes = ", ".join(example.notes())
            out.print(f"  {example.origin}: {_short(example.text)}{f' ({notes})' if notes else ''}", markup=False)
    if ledger.largest:
        out.print("largest groups of which one stayed", markup=False)
        for group in ledger.largest[:EXAMPLES]:
            out.print(f"  {group.documents:,} documents, {group.id} stayed: {_short(group.text)}", markup=False)


def _short(text: str) -> str:
    return " ".join(text.split())[:100]


def main(argv: Sequence[str]) -> None:
    """Parse flags and show."""
    parse_and_call(status, argv, "mecellem prepare status")
