"""`mecellem prepare report`: one self-contained HTML page about a prepared corpus, from ledgers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from mecellem.console import step
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from mecellem.page import render as render_page

if TYPE_CHECKING:
    from preprocessing.pipeline.config import Corpus
    from preprocessing.pipeline.ledger import SourceLedger, TaskLedger
    from preprocessing.pipeline.status import StageState

_DUPLICATES = ("exact_duplicate", "near_duplicate", "semantic_duplicate", "duplicate_id")
_MOST_BARS = 20
WORDS = "words"
TOKENS = "tokens: counted after the last stage, before it the words times the tokens that the same source has a word"
_SET_ASIDE = "set aside while reading"


def report(corpus: tyro.conf.Positional[Path], out: Path | None = None) -> None:
    """Write the report page of a run: funnel, sources, lengths, languages, duplicates, reasons with examples.

    Args:
        corpus: YAML file that `mecellem prepare run` was given; stages that are not complete are shown as far as they are.
        out: the page (default: report.html in the run's folder).
    """
    from preprocessing.pipeline.config import read_corpus

    settings = read_corpus(corpus)
    page = out or settings.out / "report.html"
    with step("Report", reads=[settings.out], writes=[page]):
        write_report(settings, page)


def write_report(corpus: Corpus, page: Path) -> None:
    """Write the page. Raises `UserError` where nothing was run yet."""
    from preprocessing.pipeline.layout import RunFolders
    from preprocessing.pipeline.status import has_current_tokens, stage_states
    from preprocessing.pipeline.tokenize import tokens_by_source, written_tokens

    states, tokens = stage_states(corpus), RunFolders(corpus.out).tokens
    current = has_current_tokens(corpus, states)  # else they are of an older run
    html = render(corpus, states, tokens_by_source(tokens, written_tokens(corpus)) if current else {})
    with atomic_write(page) as handle:
        handle.write(html)


def render(corpus: Corpus, states: list[StageState], tokens: dict[str, int]) -> str:
    """The page's HTML. `tokens` are those of each source, none where they are not written."""
    first, last = states[0].ledger.total(), states[-1].ledger.total()
    return render_page(
        Path(__file__).parent / "page.html.j2",
        title=f"{corpus.path.stem} · Mecellem corpus",
        over="Mecellem · report of a prepared corpus",
        heading=corpus.path.stem,
        path=corpus.path,
        yaml=corpus.path.read_text(encoding="utf-8"),
        headline=_headline(states, first, last),
        notes=_notes(corpus, states),
        tiles=_tiles(first, last, tokens),
        stages=[_stage_row(state) for state in states],
        sources=_source_rows(corpus, states, tokens),
        has_tokens=bool(tokens),
        unit=TOKENS if tokens else WORDS,
        figures=_figures(states, first, last, tokens),
        reasons=_reasons(states),
        lost=_lost_rows(states),
        groups=_group_rows(states),
        other=_other_rows(states),
        measures=_measures(states),
    )


def _headline(states: list[StageState], first: SourceLedger, last: SourceLedger) -> str:
    older = [state.name for state in states if state.older]
    if older:
        return f"Made with other settings than the YAML file has now: {', '.join(older)}; the next run does them again."
    unfinished = [state.name for state in states if state.seconds is None]
    if unfinished:
        return f"Not finished: {', '.join(unfinished)} still to be done; the figures are of the tasks that are."
    share = last.kept.words / first.kept.words if first.kept.words else 0
    return f"{share:.1%} of the words that were read stayed, in {last.kept.documents:,} of {first.kept.documents:,} documents."


def _notes(corpus: Corpus, states: list[StageState]) -> list[str]:
    """What is to be known beside the figures: fields that no record had, tokens that nobody asks for any more."""
    from preprocessing.pipeline.limits import field_notes
    from preprocessing.pipeline.status import older_token_lines

    tokens = [f"Tokens of {sentence}." for sentence in older_token_lines(corpus)]
    return [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in field_notes(states[0].ledger)] + tokens


def _group_rows(states: list[StageState]) -> list[dict[str, str]]:
    """The largest groups of duplicates: stage, how many documents, which of them stayed."""
    return [
        {
            "stage": state.name,
            "documents": f"{group.documents:,}",
            "id": group.id,
            "origin": group.origin,
            "text": " ".join(group.text.split())[:100],
        }
        for state in states
        for group in state.ledger.largest
    ]


def _tiles(first: SourceLedger, last: SourceLedger, tokens: dict[str, int]) -> list[dict[str, str]]:
    from preprocessing.pipeline.plots import short

    tiles = [
        ("documents", f"{last.kept.documents:,}", f"of {first.kept.documents:,} read"),
        ("words", short(last.kept.words), f"of {short(first.kept.words)} read"),
        ("records that could not be read", f"{sum(first.quarantined.values()):,}", "listed in the quarantine files"),
    ]
    if tokens:
        count = sum(tokens.values())
        fertility = f"{count / last.kept.words:.2f} a word" if last.kept.words else ""
        tiles.insert(2, ("tokens", short(count), fertility))
    return [{"label": label, "value": value, "note": note} for label, value, note in tiles]


def _stage_row(state: StageState) -> dict[str, str]:
    whole = state.ledger.total()
    return {
        "name": state.name,
        "tasks": f"{state.ready:,}/{state.folders.tasks:,}",
        "entered": f"{whole.came_in:,}",
        "kept": f"{whole.kept.documents:,}",
        "dropped": f"{sum(tally.documents for tally in whole.dropped.values()):,}",
        "words": f"{whole.kept.words:,}",
        "seconds": "" if state.seconds is None else f"{state.seconds:,.1f}",
    }


def _source_rows(corpus: Corpus, states: list[StageState], tokens: dict[str, int]) -> list[dict[str, Any]]:
    from preprocessing.pipeline.ledger import SourceLedger

    rows: list[dict[str, Any]] = []
    first, last = states[0].ledger, states[-1].ledger
    for source in corpus.file.sources:
        read, kept = (ledger.sources.get(source.name, SourceLedger()) for ledger in (first, last))
        count = f"{tokens.get(source.name, 0):,}"
        rows.append(_source_row(source.name, source.licence, f"{source.weight:g}", read, kept, count))
    return [*rows, _source_row("all", "", "", first.total(), last.total(), f"{sum(tokens.values()):,}")]


def _source_row(name: str, licence: str, weight: str, read: SourceLedger, kept: SourceLedger, tokens: str) -> dict[str, Any]:
    counts = {"read": read.kept.documents, "kept": kept.kept.documents}
    words = {"words_read": read.kept.words, "words_kept": kept.kept.words}
    numbers = {key: f"{value:,}" for key, value in (counts | words).items()}
    return {"name": name, "licence": licence, "weight": weight, "tokens": tokens, **numbers}


def _figures(states: list[StageState], first: SourceLedger, last: SourceLedger, tokens: dict[str, int]) -> dict[str, Any]:
    from preprocessing.pipeline import plots
    from preprocessing.pipeline.ledger import SourceLedger, most_common

    names = list(states[0].ledger.sources)
    reached = [state for state in states if state.ready]
    kept = {name: [state.ledger.sources.get(name, SourceLedger()).kept for state in reached] for name in names}
    documents = {name: [tally.documents for tally in tallies] for name, tallies in kept.items()}
    per_word = _tokens_per_word(states[-1], tokens)
    amounts = {name: [round(tally.words * per_word.get(name, 1.0)) for tally in tallies] for name, tallies in kept.items()}
    dropped = most_common(_dropped(states))
    duplicates = [(name, count) for name, count in dropped if name in _DUPLICATES]
    duplicates += [(name, count) for name, count in first.quarantined.items() if name in _DUPLICATES]
    alike = {state.name: state.ledger.alike for state in states if state.ledger.alike}
    others = [pair for pair in dropped if pair[0] not in _DUPLICATES][:_MOST_BARS]
    named = _languages(states)
    return {
        "funnel": plots.funnel([state.name for state in reached], documents, amounts, "tokens" if tokens else "words"),
        "lengths": plots.lengths(first.lengths_kept, last.lengths_kept),
        "languages": plots.two_bars(dict(most_common(named, _MOST_BARS)), last.languages, "documents") if named else "",
        "duplicates": plots.bars(duplicates, "documents") if duplicates else "",
        "alike": plots.alike(alike) if alike else "",
        "reasons": plots.bars(others, "documents") if others else "",
    }


def _tokens_per_word(last: StageState, tokens: dict[str, int]) -> dict[str, float]:
    """Of each source as it was tokenized; where nothing of one is left, of all together; empty without tokens."""
    if not tokens:
        return {}
    words = {name: source.kept.words for name, source in last.ledger.sources.items()}
    whole = sum(tokens.values()) / max(1, sum(words.values()))
    return {name: tokens.get(name, 0) / count if count else whole for name, count in words.items()}


def _languages(states: list[StageState]) -> dict[str, int]:
    """What the stage language named of all that it met."""
    for state in states:
        if state.name == "language":
            whole = state.ledger.total()
            found: dict[str, int] = {}
            for counts in (whole.languages, whole.languages_dropped):
                for name, count in counts.items():
                    found[name] = found.get(name, 0) + count
            return found
    return {}


def _lost_rows(states: list[StageState]) -> list[dict[str, str]]:
    """Source, stage, reason and count of everything that is not in the result, the most frequent first."""
    found = []
    for state in states:
        for source, ledger in state.ledger.sources.items():
            counts = {reason: tally.documents for reason, tally in ledger.dropped.items()} | ledger.quarantined
            found += [(count, source, state.name, reason) for reason, count in counts.items()]
    rows = sorted(found, key=lambda row: (-row[0], row[1:]))
    return [
        {"source": source, "stage": stage, "reason": reason, "count": f"{count:,}"} for count, source, stage, reason in rows
    ]


def _other_rows(states: list[StageState]) -> list[dict[str, str]]:
    """What was changed in documents, noted of them, and passed over because it is no text: stage, what, how often."""
    from preprocessing.pipeline.ledger import most_common
    from preprocessing.sources.found import SKIPPED

    rows = []
    for state in states:
        ledger = state.ledger
        for kind, counts in (("changed", ledger.changed), ("noted", ledger.noted), ("skipped", ledger.total().skipped)):
            rows += [
                {"stage": state.name, "kind": kind, "name": SKIPPED.get(name, name.replace("_", " ")), "count": f"{count:,}"}
                for name, count in most_common(counts)
            ]
    return rows


def _dropped(states: list[StageState]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for state in states:
        for reason, tally in state.ledger.total().dropped.items():
            counts[reason] = counts.get(reason, 0) + tally.documents
    return counts


def _reasons(states: list[StageState]) -> list[dict[str, Any]]:
    """For each stage its reasons, the most frequent first, with sentences and examples."""
    from preprocessing.pipeline.ledger import most_common
    from preprocessing.pipeline.registry import STAGES
    from preprocessing.sources.found import PROBLEMS

    groups = []
    for state in states:
        whole = state.ledger.total()
        sentences = PROBLEMS if state.name not in STAGES else STAGES[state.name].reasons
        counts = {reason: tally.documents for reason, tally in whole.dropped.items()} | whole.quarantined
        entries = [
            {
                "name": reason,
                "count": f"{count:,}",
                "share": f"{count / whole.came_in:.2%} of what came in" if whole.came_in else "",
                "sentence": sentences.get(reason, "")[:1].upper() + sentences.get(reason, "")[1:],
                "examples": _examples(state.ledger, reason),
            }
            for reason, count in most_common(counts)
        ]
        if entries:
            groups.append({"stage": state.name if state.name in STAGES else _SET_ASIDE, "reasons": entries})
    return groups


def _examples(ledger: TaskLedger, reason: str) -> list[dict[str, str]]:
    examples = [
        {
            "text": example.text,
            "where": ", ".join([example.origin, *example.notes()]),
        }
        for example in ledger.examples.get(reason, [])
    ]
    places = ledger.locations.get(reason, [])
    return examples + [
        {"text": place.detail, "where": f"{place.file}, line {place.line}" if place.line else place.file} for place in places
    ]


def _measures(states: list[StageState]) -> list[dict[str, Any]]:
    from preprocessing.pipeline import plots

    return [
        {"title": f"{state.name}: {name.replace('_', ' ')}", "figure": plots.measure(name, groups)}
        for state in states
        for name, groups in sorted(state.ledger.measures.items())
    ]


def main(argv: Sequence[str]) -> None:
    """Parse flags and write the page."""
    parse_and_call(report, argv, "mecellem prepare report")
