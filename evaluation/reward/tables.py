"""The tables that `mecellem evaluate reward` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from evaluation.reward.results import Interval, JudgeScores, LengthControl, RewardResults

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MISSING = "–"


def spread(interval: Interval) -> str:
    """`-0.120 – +0.310`, or a dash for what one prompt cannot tell."""
    return MISSING if interval is None else f"{interval[0]:+.3f} – {interval[1]:+.3f}"


def p_text(p: float | None) -> str:
    """`0.012`, `<0.001`, or a dash."""
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def new_table(title: str, columns: Sequence[str]) -> Table:
    """A table whose first column is the axis and whose others are numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("axis", overflow="fold", min_width=12)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def axis_tables(scores: JudgeScores, names: tuple[str, str]) -> Iterator[Table]:
    """A row an axis: means and their difference, tests, and the difference at equal length.

    ? marks a difference that can be chance, ! an equal length that nobody wrote.
    """
    title = f"{scores.judge.name}: {names[1]} minus {names[0]}"
    means = new_table(title, ("base", "continued", "difference", "95%"))
    tests = new_table(f"{title}, tests", ("wins", "ties", "p permutation", "p Wilcoxon"))
    lengths = new_table(f"{title}, at equal length", ("difference", "95%", "p", "per log length"))
    for row in scores.comparisons:
        mark = "" if row.real else " ?"
        means.add_row(row.axis, f"{row.base:.3f}", f"{row.continued:.3f}", f"{row.difference:+.3f}{mark}", spread(row.interval))
        tests.add_row(
            row.axis, f"{row.wins:.0%}", f"{row.ties:.0%}", p_text(row.p_permutation_holm), p_text(row.p_wilcoxon_holm)
        )
        lengths.add_row(row.axis, *length_cells(row.length_control))
    yield from (means, tests, lengths)


def length_cells(control: LengthControl | None) -> list[str]:
    """The cells of one axis at equal length; dashes where lengths tell nothing."""
    if control is None:
        return [MISSING] * 4
    marks = f"{'' if control.real else ' ?'}{'' if control.inside else ' !'}"
    slope = MISSING if control.slope is None else f"{control.slope:+.3f}"
    return [f"{control.difference:+.3f}{marks}", spread(control.interval), p_text(control.p_holm), slope]


def notes(results: RewardResults) -> list[str]:
    """What the tables' marks mean, and what was cut, empty or unfinished."""
    base, continued = results.base, results.continued
    lines = [
        f"{results.prompt_count:,} prompts; p after Holm over the axes of a judge; ? marks p of 0.05 or more (permutation "
        "test; at equal length t-test); wins: prompts on which the continued model scores higher",
        f"length: {base.name} {base.mean_length:.0f} characters, {continued.name} {continued.mean_length:.0f}, difference "
        f"{results.length_difference:+.0f} ({spread(results.length_interval)}); equal length: intercept of a line over the "
        "logarithm of the ratio of lengths, ! where all continuations of one side are longer, so that it extrapolates",
    ]
    for side in (base, continued):
        counts = {"empty": side.empty, "ended by --max-new-tokens": side.unfinished or 0}
        told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        if told:
            lines.append(f"continuations of {side.name}: {told}")
    lines += [
        f"{scores.judge.name}: {scores.judge.cut:,} continuations were longer than it reads and lost their end"
        for scores in results.judges
        if scores.judge.cut
    ]
    return lines


def print_results(console: Console, results: RewardResults) -> None:
    """The tables of every judge, and the notes."""
    for scores in results.judges:
        for table in axis_tables(scores, (results.base.name, results.continued.name)):
            console.print(table)
    for line in notes(results):
        console.print(line, markup=False)
