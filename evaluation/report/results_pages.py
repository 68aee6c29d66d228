"""Pages of what `mecellem evaluate` and its kin wrote: the tables that they print, their pictures, how they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evaluation.drawing import Theme
from evaluation.efficiency import results as efficiency
from evaluation.fill_mask import results as fill_mask
from evaluation.leaderboard import results as leaderboard
from evaluation.long_context import results as long_context
from evaluation.perplexity import results as perplexity
from evaluation.report.plots import Drawn, draw_themes
from evaluation.results import Record, read_record
from mecellem.errors import UserError
from mecellem.page import csv_uri, data_uri
from mecellem.page import render as render_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

Drawing = Callable[[Theme], "Figure"]


@dataclass(frozen=True, slots=True)
class Content:
    """What a page shows. `figures`: name -> (how it is drawn, what it is called, caption); `notes` stand below the tables."""

    heading: str
    headline: str
    tables: list[Table]
    notes: list[str]
    figures: dict[str, tuple[Drawing, str, str]]
    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: str = ""
    tiles: list[dict[str, str]] = field(default_factory=list)
    over: str = "Mecellem · results of an evaluation"  # stands above the heading


def counted(count: int, what: str) -> str:
    """`1 model`, `2 models`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def leaderboard_content(found: leaderboard.Leaderboard) -> Content:
    """Of `mecellem evaluate`."""
    from evaluation.leaderboard.plot import board_figure
    from evaluation.leaderboard.tables import board_tables, comparison_lines, mean_lines

    names = ", ".join(system.name for system in found.systems)
    machines = dict.fromkeys(result.hardware for system in found.systems for result in system.tasks.values())
    caption = "Every system's main score on every task; bars are 95% bootstrap intervals over items where these were scored."
    return Content(
        heading="Leaderboard",
        headline=f"{names} on {counted(len(found.tasks), 'task')}, by mteb's own evaluators.",
        tables=[*board_tables(found)],
        notes=[*mean_lines(found), *comparison_lines(found)],
        figures={"leaderboard": (partial(board_figure, found), "Scores of every system on every task", caption)},
        settings=found.settings,
        versions=found.versions,
        hardware="; ".join(machines),
    )


def fill_mask_content(found: fill_mask.FillMaskResults) -> Content:
    """Of `mecellem evaluate fill-mask`."""
    from evaluation.fill_mask.plot import fill_mask_figure
    from evaluation.fill_mask.tables import MEASURES, NOTE, change_lines, cloze_table, coverage, score_table

    tables = [score_table(found, measure) for measure in MEASURES]
    if any(model.model.cloze for model in found.models):
        tables.append(cloze_table(found))
    caption = "Every model and the unigram baseline in every domain; bars are 95% bootstrap intervals over documents."
    return Content(
        heading="Fill-mask",
        headline=f"{', '.join(model.name for model in found.models)} on {counted(found.texts.passages, 'passage')} of "
        f"{counted(found.texts.documents, 'document')}.",
        tables=tables,
        notes=[*change_lines(found), *coverage(found).splitlines(), NOTE],
        figures={"fill_mask": (partial(fill_mask_figure, found), "Masked words right and bits per byte", caption)},
        settings=found.settings,
        versions=found.versions,
        hardware=found.hardware,
    )


def long_context_content(found: long_context.LongContextResults) -> Content:
    """Of `mecellem evaluate long-context`."""
    from evaluation.long_context.plot import drawings
    from evaluation.long_context.tables import lines, model_tables

    captions = {
        "needle": "Share of questions that find the document with their fact, by its length and the fact's depth.",
        "places": "Cosine of a document's vector to its own pieces, by their place, less the mean.",
        "masks": "Loss of hidden tokens by their place, and less that of the same tokens in the shortest windows.",
    }
    return Content(
        heading="Long context",
        headline=f"{', '.join(model.name for model in found.models)} on {counted(found.documents, 'document')}.",
        tables=[table for model in found.models for table in model_tables(model)],
        notes=lines(found),
        figures={name: (draw, captions[name], captions[name]) for name, draw in drawings(found).items()},
        settings=found.settings,
        versions=found.versions,
        hardware=found.hardware,
    )


def perplexity_content(found: perplexity.PerplexityResults) -> Content:
    """Of `mecellem evaluate perplexity`."""
    from evaluation.perplexity.plot import perplexity_figure
    from evaluation.perplexity.tables import CHANGE_NOTE, MEASURES, coverage, score_table

    caption = "Every model in every sub-domain; bars are 95% bootstrap intervals over documents."
    return Content(
        heading="Perplexity",
        headline=f"{', '.join(model.name for model in found.models)} on {counted(found.texts.documents, 'document')}.",
        tables=[score_table(found, measure) for measure in MEASURES],
        notes=[*([f"Changes are {CHANGE_NOTE}."] if len(found.models) > 1 else []), *coverage(found).splitlines()],
        figures={"perplexity": (partial(perplexity_figure, found), "Perplexity and bits per byte", caption)},
        settings=found.settings,
        versions=found.versions,
        hardware=found.hardware,
    )


def efficiency_content(found: efficiency.EfficiencyResults) -> Content:
    """Of `mecellem evaluate efficiency`."""
    from evaluation.efficiency.plot import pareto_figure
    from evaluation.efficiency.tables import cost_table, input_table, legend, measured_line, score_tables

    tables = [cost_table(found.measured)] if found.measured else []
    for board in found.boards:
        tables += [input_table(board), *score_tables(board)]
    lines = [measured_line(found)] if found.measured else []
    lines += [line for board in found.boards for line in legend(board)]
    drawn = any(board.fronts for board in found.boards)
    caption = "Quality against each cost; a filled mark: no other system is as good for less, or better for as much."
    return Content(
        heading="Production efficiency",
        headline=f"{counted(sum(len(board.rows) for board in found.boards), 'system')} in "
        f"{counted(len(found.boards), 'benchmark')}; systems are set against each other within a benchmark only.",
        tables=tables,
        notes=[
            *([measured_line(found)] if found.measured else []),
            *(line for board in found.boards for line in legend(board)),
        ],
        figures={"pareto": (partial(pareto_figure, found.boards), "Quality against cost", caption)} if drawn else {},
        settings=found.settings,
        versions=found.versions,
        hardware=found.hardware,
    )


def reward_content(found: Any) -> Content:
    """Of `mecellem evaluate reward`."""
    from evaluation.reward.plot import reward_figure
    from evaluation.reward.tables import axis_tables, notes

    names = (found.base.name, found.continued.name)
    caption = "The continued model minus the base model, axis by axis, as written and at equal length; bars are 95% intervals."
    return Content(
        heading="Continuations, judged",
        headline=f"{names[1]} beside {names[0]} on {counted(found.prompt_count, 'prompt')}.",
        tables=[table for scores in found.judges for table in axis_tables(scores, names)],
        notes=notes(found),
        figures={"reward": (partial(reward_figure, found), "Differences by axis", caption)},
        settings=found.settings,
        versions=found.versions,
        hardware=found.hardware,
    )


def kinds() -> dict[str, tuple[type[Record], Callable[[Any], Content], str]]:
    """Format -> (its record, its page's content, the command that writes it)."""
    from evaluation.reward import results as reward

    return {
        leaderboard.FORMAT: (leaderboard.Leaderboard, leaderboard_content, "mecellem evaluate"),
        fill_mask.FORMAT: (fill_mask.FillMaskResults, fill_mask_content, "mecellem evaluate fill-mask"),
        perplexity.FORMAT: (perplexity.PerplexityResults, perplexity_content, "mecellem evaluate perplexity"),
        long_context.FORMAT: (long_context.LongContextResults, long_context_content, "mecellem evaluate long-context"),
        efficiency.FORMAT: (efficiency.EfficiencyResults, efficiency_content, "mecellem evaluate efficiency"),
        reward.FORMAT: (reward.RewardResults, reward_content, "mecellem evaluate reward"),
    }


def read_content(path: Path) -> Content:
    """What the results file of one of those commands is to show. Raises `UserError` for any other file."""
    try:
        found = orjson.loads(path.read_bytes())
        written = found.get("format") if isinstance(found, dict) else None
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error.msg}): give a run's folder or the results of an evaluation") from None
    known = kinds()
    if written not in known:
        commands = ", ".join(f"`{command}`" for _, _, command in known.values())
        raise UserError(f"{path} has format {written!r}, which has no page: give a run's folder, or what {commands} wrote")
    kind, make, command = known[written]
    return make(read_record(path, kind, f"write it again with `{command}`"))


def table_parts(table: Table) -> tuple[str, list[str], list[list[str]]]:
    """Title, heads and rows of a rich table as plain text; a first cell that repeats is left empty there, and filled here."""
    from rich.text import Text

    def plain(cell: Any) -> str:
        return Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)

    columns = [[plain(cell) for cell in column.cells] for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    for before, row in pairwise(rows):
        row[0] = row[0] or before[0]
    return plain(table.title or ""), [plain(column.header) for column in table.columns], rows


def draw(content: Content) -> dict[str, Drawn]:
    """Every figure in every theme."""
    return {name: draw_themes(drawing) for name, (drawing, _, _) in content.figures.items()}


def render(content: Content, figures: dict[str, Drawn], source: Path) -> str:
    """The whole page."""
    return render_page(
        Path(__file__).parent / "results.html.j2",
        title=f"{content.heading} · Mecellem",
        over=content.over,
        heading=content.heading,
        headline=content.headline,
        tiles=content.tiles,
        tables=[table_parts(table) for table in content.tables],
        notes=content.notes,
        figures=list(pictures(content, figures)),
        settings={key: str(value) for key, value in content.settings.items()},
        versions=content.versions,
        hardware=content.hardware,
        source=source.name,
    )


def pictures(content: Content, figures: dict[str, Drawn]) -> Iterator[dict[str, Any]]:
    """Name, addresses of pictures and data, and words of every figure."""
    for name, (_, title, caption) in content.figures.items():
        drawn = figures[name]
        addresses = {theme: data_uri(png, "image/png") for theme, png in drawn.images.items()} | {"csv": csv_uri(drawn.csv)}
        yield {"name": name, "addresses": addresses, "title": title, "caption": caption}
