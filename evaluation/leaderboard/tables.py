"""What `mecellem evaluate` prints and the CSV file that holds the same figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from evaluation.leaderboard.results import Leaderboard, SystemResults, TaskResult
from mecellem.console import human_time

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NONE = "–"
TASK_WIDTH, SYSTEM_WIDTH = 24, 14  # characters of names before they fold


def score(value: float | None) -> str:
    """`.123`, as scores of this kind are usually printed; a dash for what does not exist."""
    if value is None:
        return NONE
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def result_line(result: TaskResult, done: str) -> str:
    """One task of one system: its score, interval and time, and what was not read."""
    spread = "" if result.interval is None else f" ({score(result.interval[0])} to {score(result.interval[1])})"
    notes = []
    if result.truncated:
        notes.append(f"{result.truncated:.1%} of texts cut at the context length")
    if result.empty:
        notes.append(f"{result.empty} empty texts")
    parts = [f"{result.main_metric} {score(result.main_score)}{spread}", done or human_time(result.seconds), *notes]
    return f"  {result.task:<32} {', '.join(parts)}"


def ranked(board: Leaderboard) -> list[SystemResults]:
    """Systems by the first mean that they have, best first; those that lack the mean over tasks come last."""
    first, *others = board.means

    def order(system: SystemResults) -> tuple[bool, float]:
        value = first.values[system.name]
        rest = next((mean.values[system.name] for mean in others if mean.values[system.name] is not None), None)
        return value is None, -(value if value is not None else rest or 0.0)

    return sorted(board.systems, key=order)


def count(value: int | None) -> str:
    """`117.5M`; a dash for what is unknown."""
    if value is None:
        return NONE
    return f"{value / 1e6:.1f}M" if value >= 1e5 else f"{value / 1e3:.0f}K"


def board_tables(board: Leaderboard, width: int | None = None) -> Iterator[Table]:
    """As many systems abreast as `width` columns have room for (None: all), best mean first.

    One column a system: tasks by category with its mean, means over all, sizes. Bold: the best of a row, over all tables.
    """
    systems = ranked(board)
    names = min(TASK_WIDTH, max(len("mean of retrieval"), *(len(task.name) for task in board.tasks)))
    heads = names + max(len(task.main_metric) for task in board.tasks)
    cells = max(7, *(min(SYSTEM_WIDTH, len(system.name)) for system in systems))
    abreast = len(systems) if width is None else max(1, (width - heads - 7) // (cells + 3))  # 7 and 3: borders and blanks
    for start in range(0, len(systems), abreast):
        yield board_table(board, systems, slice(start, start + abreast))


def board_table(board: Leaderboard, systems: Sequence[SystemResults], shown: slice) -> Table:
    """The table of some of the systems."""
    from rich.table import Table

    table = Table(title="leaderboard", title_justify="left")
    table.add_column("task", overflow="fold")
    table.add_column("metric", no_wrap=True)
    for system in systems[shown]:
        table.add_column(system.name, justify="right", overflow="fold", max_width=SYSTEM_WIDTH, min_width=5)
    over_all, groups = [*board.means[:2], *board.group_means], board.means[2:]
    metrics = {task.name: task.main_metric for task in board.tasks}

    def add(name: str, metric: str, values: list[float | None]) -> None:
        table.add_row(name, metric, *score_cells(values)[shown])

    for mean in groups:
        for task in mean.tasks:
            found = [system.tasks.get(task) for system in systems]
            add(task, metrics[task], [result.main_score if result else None for result in found])
        if len(mean.tasks) > 1:
            add(f"mean of {mean.name}", "", [mean.values[system.name] for system in systems])
        table.add_section()
    for mean in over_all:
        add(mean.name, "", [mean.values[system.name] for system in systems])
    table.add_section()
    facts = [system.facts for system in systems[shown]]
    table.add_row("parameters", "", *(count(item.parameters if item else None) for item in facts))
    table.add_row("dimensions", "", *(str(item.dimensions) if item else NONE for item in facts))
    return table


def score_cells(values: list[float | None]) -> list[str]:
    """Scores as they are printed, the best bold."""
    best = max((value for value in values if value is not None), default=None)
    alone = sum(value is not None for value in values) < 2
    return [score(value) if alone or value is None or value != best else f"[bold]{score(value)}[/bold]" for value in values]


def mean_lines(board: Leaderboard) -> list[str]:
    """Which tasks are in every mean, and who has none because it lacks some of them."""
    over_tasks, by_type, *parts = board.means
    lines = [f"{part.name}: mean over {', '.join(part.tasks)}" for part in parts]
    names = ", ".join(part.name for part in parts)
    lines.append(f"{over_tasks.name}: mean over all {len(over_tasks.tasks)} tasks; {by_type.name}: mean of {names}")
    for system, lacking in over_tasks.missing.items():
        lines.append(
            f"{system} has not done {', '.join(lacking)}: no mean that these are in, which would be one over other tasks"
        )
    for mean in board.group_means:
        lacking = sorted({task for names in mean.missing.values() for task in names})
        without = f"; not all systems have {', '.join(lacking)}, and those have no such mean" if lacking else ""
        lines.append(f"{mean.name}: as published, over {', '.join(mean.tasks)}{without}")
    for item in board.left_out:
        lines.append(f"{item.name} was left out and is in no mean: {item.reason}")
    return lines


def comparison_lines(board: Leaderboard) -> list[str]:
    """Every system's retrieval beside BM25's."""
    lines = []
    for system in ranked(board):
        found = system.against_bm25
        if found is None:
            continue
        low, high = (f"{value:+.3f}" for value in found.interval)
        verdict = ("above" if found.difference > 0 else "below") if found.real else "not distinguishable from"
        lines.append(
            f"{found.a} is {verdict} {found.b} in {found.metric} over {', '.join(found.tasks)}: "
            f"{found.difference:+.3f} ({low} to {high}, paired bootstrap over queries)"
        )
    return lines


def print_board(out: Console, board: Leaderboard) -> None:
    """The table, what is in the means, and how each system stands to BM25."""
    for table in board_tables(board, out.width):
        out.print(table)
    for line in (*mean_lines(board), *comparison_lines(board)):
        out.print(line, markup=False)


def board_csv(board: Leaderboard) -> str:
    """One row a system in full precision: what it is, its means, then every task with its interval. Empty: not done."""
    heads = ["system", "kind", "parameters", "embedding_parameters", "dimensions", "max_seq_length", "pooling", "sha256"]
    means = [*board.means, *board.group_means]
    heads += [mean.name for mean in means]
    heads += [f"{task.name}{end}" for task in board.tasks for end in ("", " low", " high", " truncated")]
    target = io.StringIO()
    rows = csv.writer(target, lineterminator="\n")
    rows.writerow(heads)
    for system in ranked(board):
        facts = system.facts
        about: list[int | str | None] = [None] * 5
        if facts is not None:
            about = [facts.parameters, facts.embedding_parameters, facts.dimensions, facts.max_seq_length, facts.pooling]
        row = [system.name, system.kind, *about, system.sha256, *(mean.values[system.name] for mean in means)]
        for task in board.tasks:
            result = system.tasks.get(task.name)
            row += [None] * 4 if result is None else [result.main_score, *(result.interval or (None, None)), result.truncated]
        rows.writerow(["" if value is None else value for value in row])
    return target.getvalue()
