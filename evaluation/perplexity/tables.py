"""The tables that `mecellem evaluate perplexity` prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evaluation.perplexity.results import Change, Interval, ModelScores, PerplexityResults, Score

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ALL = "all"
CHANGE_NOTE = "from the first model; ? marks one whose 95% interval includes 0"


def spread(interval: Interval, digits: int) -> str:
    """`12.1–13.4`, or a dash for what one document cannot tell."""
    return "–" if interval is None else f"{interval[0]:.{digits}f}–{interval[1]:.{digits}f}"


def rows(model: ModelScores) -> list[tuple[str, Score, Change | None]]:
    """(sub-domain, score, change) for every sub-domain and, last, for all; all alone where there is only one."""
    parts = [(name, score, model.change_by_domain.get(name)) for name, score in model.by_domain.items()]
    return [*(parts if len(parts) > 1 else []), (ALL, model.all, model.change)]


def perplexity_cells(score: Score, change: Change | None) -> list[str]:
    """Tokens, perplexity with its interval, and the change from the first model."""
    relative = "" if change is None else "other tokens" if change.perplexity is None else f"{change.perplexity:+.1%}"
    return [f"{score.tokens:,}", f"{score.perplexity:.2f}", spread(score.perplexity_interval, 2), relative]


def bits_cells(score: Score, change: Change | None) -> list[str]:
    """Bits per byte with its interval, and the change from the first model with its own."""
    found = [f"{score.bits_per_byte:.3f}", spread(score.bits_per_byte_interval, 3)]
    if change is None:
        return [*found, "", ""]
    mark = "" if change.real else " ?"
    return [*found, f"{change.bits_per_byte:+.3f}{mark}", spread(change.bits_per_byte_interval, 3)]


MEASURES: dict[str, tuple[tuple[str, ...], Callable[[Score, Change | None], list[str]]]] = {
    "perplexity": (("tokens", "perplexity", "95%", "change"), perplexity_cells),
    "bits per byte": (("bits/byte", "95%", "change", "95%"), bits_cells),
}


def score_table(results: PerplexityResults, measure: str) -> Table:
    """One row a sub-domain and model, narrow enough for a terminal of 80 columns."""
    from rich.table import Table

    settings, (columns, cells) = results.settings, MEASURES[measure]
    title = f"{measure}: window {settings['window']}, stride {settings['stride']}, {settings['dtype']}"
    table = Table(title=title, title_justify="left")
    for name in ("sub-domain", "model"):
        table.add_column(name, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    by_model = [rows(model) for model in results.models]
    for part in zip(*by_model, strict=True):
        for number, (model, (domain, score, change)) in enumerate(zip(results.models, part, strict=True)):
            last = number == len(results.models) - 1
            table.add_row(domain if number == 0 else "", model.name, *cells(score, change), end_section=last)
    return table


def print_results(console: Console, results: PerplexityResults) -> None:
    """The tables, and what was left out of it."""
    for measure in MEASURES:
        console.print(score_table(results, measure))
    if len(results.models) > 1:
        console.print(f"changes are {CHANGE_NOTE}", markup=False)
    console.print(coverage(results), markup=False)


def coverage(results: PerplexityResults) -> str:
    """How many documents took more than one window, and what was left out."""
    texts = results.texts
    left = {"empty": texts.empty, "cut by --max-characters": texts.cut, "left out by --max-documents": texts.left_out}
    left[f"without {results.settings['domain_field']!r}, under their file's name"] = texts.unnamed
    counts = ", ".join(f"{count:,} {what}" for what, count in left.items() if count)
    long = ", ".join(f"{model.name} {model.long_documents:,}" for model in results.models)
    return f"documents longer than the window: {long}{f'; {counts}' if counts else ''}"
