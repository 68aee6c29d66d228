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
    from mecellem.manifest import CorpusManifest
    from preprocessing.pipeline.config import Corpus
    from preprocessing.pipeline.ledger import SourceLedger, TaskLedger
    from preprocessing.pipeline.status import StageState

_DUPLICATES = ("exact_duplicate", "near_duplicate", "semantic_duplicate", "duplicate_id")
_MOST_BARS = 20
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
    from preprocessing.pipeline.status import stage_states, written_tokens

    html = render(corpus, stage_states(corpus), written_tokens(corpus))
    with atomic_write(page) as handle:
        handle.write(html)


def render(corpus: Corpus, states: list[StageState], tokens: dict[str, CorpusManifest]) -> str:
    """The page's HTML."""
    first, last = states[0].ledger.total(), states[-1].ledger.total()
    return render_page(
        Path(__file__).parent / "page.html.j2",
        title=f"{corpus.path.stem} · Mecellem corpus",
        over="Mecellem · report of a prepared corpus",
        heading=corpus.path.stem,
        path=corpus.path,
        yaml=corpus.path.read_text(encoding="utf-8"),
        headline=_headline(states, first, last),
        tiles=_tiles(first, last, tokens),
        stages=[_stage_row(state) for state in states],
        sources=_source_rows(corpus, states, tokens),
        has_tokens=bool(tokens),
        figures=_figures(states, first, last),
        reasons=_reasons(states),
        measures=_measures(states),
    )


def _headline(states: list[StageState], first: SourceLedger, last: SourceLedger) -> str:
    unfinished = [state.name for state in states if state.seconds is None]
    if unfinished:
        return f"Not finished: {', '.join(unfinished)} still to be done; the figures are of the tasks that are."
    share = last.kept.words / first.kept.words if first.kept.words else 0
    return f"{share:.1%} of the words that were read stayed, in {last.kept.documents:,} of {first.kept.documents:,} documents."


def _tiles(first: SourceLedger, last: SourceLedger, tokens: dict[str, CorpusManifest]) -> list[dict[str, str]]:
    from preprocessing.pipeline.plots import short

    tiles = [
        ("documents", f"{last.kept.documents:,}", f"of {first.kept.documents:,} read"),
        ("words", short(last.kept.words), f"of {short(first.kept.words)} read"),
        ("records that could not be read", f"{sum(first.quarantined.values()):,}", "listed in the quarantine files"),
    ]
    if tokens:
        count = sum(manifest.tokens for manifest in tokens.values())
        fertility = f"{count / last.kept.words:.2f} a word" if last.kept.words else ""
        tiles.insert(2, ("tokens", short(count), fertility))
    return [{"label": label, "value": value, "note": note} for label, value, note in tiles]


def _stage_row(state: StageState) -> dict[str, str]:
    whole = state.ledger.total()
    return {
        "name": state.name,
        "tasks": f"{state.ready:,}/{state.folders.tasks:,}",
        "entered": f"{whole.entered.documents:,}",
        "kept": f"{whole.kept.documents:,}",
        "dropped": f"{sum(tally.documents for tally in whole.dropped.values()):,}",
        "words": f"{whole.kept.words:,}",
        "seconds": "" if state.seconds is None else f"{state.seconds:,.1f}",
    }


def _source_rows(corpus: Corpus, states: list[StageState], tokens: dict[str, CorpusManifest]) -> list[dict[str, Any]]:
    from preprocessing.pipeline.ledger import SourceLedger

    rows: list[dict[str, Any]] = []
    first, last = states[0].ledger, states[-1].ledger
    for source in corpus.file.sources:
        read, kept = (ledger.sources.get(source.name, SourceLedger()) for ledger in (first, last))
        count = tokens[source.name].tokens if source.name in tokens else None
        rows.append(_source_row(source.name, source.licence, f"{source.weight:g}", read, kept, f"{count:,}" if count else ""))
    whole = sum(manifest.tokens for manifest in tokens.values())
    return [*rows, _source_row("all", "", "", first.total(), last.total(), f"{whole:,}")]


def _source_row(name: str, licence: str, weight: str, read: SourceLedger, kept: SourceLedger, tokens: str) -> dict[str, Any]:
    counts = {"read": read.kept.documents, "kept": kept.kept.documents}
    words = {"words_read": read.kept.words, "words_kept": kept.kept.words}
    numbers = {key: f"{value:,}" for key, value in (counts | words).items()}
    return {"name": name, "licence": licence, "weight": weight, "tokens": tokens, **numbers}


def _figures(states: list[StageState], first: SourceLedger, last: SourceLedger) -> dict[str, Any]:
    from preprocessing.pipeline import plots
    from preprocessing.pipeline.ledger import SourceLedger, most_common

    names = list(states[0].ledger.sources)
    reached = [state for state in states if state.ready]
    kept = {name: [state.ledger.sources.get(name, SourceLedger()).kept for state in reached] for name in names}
    documents = {name: [tally.documents for tally in tallies] for name, tallies in kept.items()}
    words = {name: [tally.words for tally in tallies] for name, tallies in kept.items()}
    dropped = most_common(_dropped(states))
    duplicates = [(name, count) for name, count in dropped if name in _DUPLICATES]
    duplicates += [(name, count) for name, count in first.quarantined.items() if name in _DUPLICATES]
    others = [pair for pair in dropped if pair[0] not in _DUPLICATES][:_MOST_BARS]
    languages = most_common(last.languages, _MOST_BARS)
    return {
        "funnel": plots.funnel([state.name for state in reached], documents, words),
        "lengths": plots.lengths(first.lengths_kept, last.lengths_kept),
        "languages": plots.bars(languages, "documents") if languages else "",
        "duplicates": plots.bars(duplicates, "documents") if duplicates else "",
        "reasons": plots.bars(others, "documents") if others else "",
    }


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
                "share": f"{count / whole.entered.documents:.2%} of what came in" if whole.entered.documents else "",
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
            "where": ", ".join([example.origin, *(f"{name} {value:g}" for name, value in sorted(example.measures.items()))]),
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
