"""The table that `mecellem evaluate perplexity` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.perplexity.results import Change, Interval, ModelScores, PerplexityResults, Score

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ALL = "all"
COLUMNS = ("documents", "tokens", "perplexity", "95%", "bits/byte", "95%")
CHANGES = ("perplexity", "bits/byte", "95%")


def spread(interval: Interval, digits: int) -> str:
    """`12.1–13.4`, or a dash for what one document cannot tell."""
    return "–" if interval is None else f"{interval[0]:.{digits}f}–{interval[1]:.{digits}f}"


def rows(model: ModelScores) -> list[tuple[str, Score, Change | None]]:
    """(sub-domain, score, change) for every sub-domain and, last, for all; all alone where there is only one."""
    parts = [(name, score, model.change_by_domain.get(name)) for name, score in model.by_domain.items()]
    return [*(parts if len(parts) > 1 else []), (ALL, model.all, model.change)]


def cells(score: Score) -> list[str]:
    """The columns of a score."""
    return [
        f"{score.documents:,}",
        f"{score.tokens:,}",
        f"{score.perplexity:.2f}",
        spread(score.perplexity_interval, 2),
        f"{score.bits_per_byte:.4f}",
        spread(score.bits_per_byte_interval, 4),
    ]


def change_cells(change: Change | None) -> list[str]:
    """The columns of a change; empty for the first model."""
    if change is None:
        return [""] * len(CHANGES)
    relative = "other tokens" if change.perplexity is None else f"{change.perplexity:+.1%}"
    mark = "" if change.real else " ?"
    return [relative, f"{change.bits_per_byte:+.4f}{mark}", spread(change.bits_per_byte_interval, 4)]


def score_table(results: PerplexityResults) -> Table:
    """One row a sub-domain and model; changes stand beside the first model's scores."""
    from rich.table import Table

    settings = results.settings
    table = Table(title=f"window {settings['window']}, stride {settings['stride']}, {settings['dtype']}", title_justify="left")
    table.add_column("sub-domain")
    table.add_column("model")
    several = len(results.models) > 1
    for name in COLUMNS + (tuple(f"change: {name}" for name in CHANGES) if several else ()):
        table.add_column(name, justify="right")
    by_model = [rows(model) for model in results.models]
    for part in zip(*by_model, strict=True):
        for number, (model, (domain, score, change)) in enumerate(zip(results.models, part, strict=True)):
            table.add_row(
                domain if number == 0 else "",
                model.name,
                *cells(score),
                *(change_cells(change) if several else []),
                end_section=number == len(results.models) - 1,
            )
    return table


def print_results(console: Console, results: PerplexityResults) -> None:
    """The table, and what was left out of it."""
    texts = results.texts
    console.print(score_table(results))
    if len(results.models) > 1:
        console.print("changes are from the first model; ? marks one whose 95% interval includes 0", markup=False)
    left = {"empty": texts.empty, "cut by --max-characters": texts.cut, "left out by --max-documents": texts.left_out}
    counts = ", ".join(f"{count:,} {what}" for what, count in left.items() if count)
    long = ", ".join(f"{model.name} {model.long_documents:,}" for model in results.models)
    console.print(f"documents longer than the window: {long}{f'; {counts}' if counts else ''}", markup=False)
