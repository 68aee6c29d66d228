"""`mecellem evaluate efficiency`: what systems cost here, what they are worth, and how definitions rank them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from evaluation.efficiency.settings import EfficiencySettings
from evaluation.encoders.settings import EncoderSettings
from mecellem.console import step
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call

PUBLISHED = Path("published")  # the word for the table that comes with the package


def efficiency(
    systems: tyro.conf.Positional[tuple[str, ...]] = (),
    texts: tuple[Path, ...] = (Path("data/corpus"),),
    leaderboard: Path | None = None,
    table: tuple[Path, ...] = (PUBLISHED,),
    definitions: Path | None = None,
    out: Path = Path("data/efficiency/results.json"),
    plot: Path | None = None,
    cache: Path | None = None,
    encoders: Path | None = None,
    device: str = "auto",
    settings: EfficiencySettings = EfficiencySettings(),  # noqa: B008 (frozen)
    encoding: EncoderSettings = EncoderSettings(),  # noqa: B008 (frozen)
) -> None:
    """Quality against cost: several open definitions of production efficiency side by side, and Pareto fronts.

    Costs are measured here, each system in a process of its own: parameters, vector width, bytes of an index, time of
    single queries, documents per second, memory, time to the first answer. Qualities come from `mecellem evaluate`'s
    results and from tables of published figures; systems are only set against each other within one benchmark. A figure
    that is not known is missing, never 0: a system that lacks an input has no score under that definition. Without
    systems the published figures alone are ranked.

    Args:
        systems: models as `mecellem evaluate` takes them; NAME=MODEL joins one to the row of that name
        texts: what is encoded to measure costs: .jsonl files with {"text": ...} a line, or corpus folders (their test split)
        leaderboard: results of `mecellem evaluate` (JSON), for the systems' qualities
        table: tables of published figures, .yaml or .csv; `published` is the one with the source paper's rows
        definitions: a YAML file of definitions; the one that comes with the package unless given
        out: where all figures go (JSON)
        plot: where the picture goes (PNG, its data beside it as CSV); beside the figures unless given
        cache: where measurements are kept; beside the figures unless given
        encoders: YAML file with settings of single systems, as `mecellem evaluate` takes it
        device: auto, cpu, cuda or cuda:N
        settings: how costs are measured
        encoding: how texts become vectors
    """
    from evaluation.efficiency.measure import rank_systems
    from evaluation.efficiency.plot import draw, points_csv
    from evaluation.efficiency.table import DEFAULT
    from evaluation.efficiency.tables import print_results

    plot = plot or out.with_suffix(".png")
    data = plot.with_suffix(".csv")
    tables = [DEFAULT if path == PUBLISHED else path for path in table]
    reads: list[Path | str] = [*systems, *(texts if systems else ()), *tables, *([leaderboard] if leaderboard else [])]
    with step("production efficiency", reads, writes=[out]) as console:
        results = rank_systems(
            systems,
            texts,
            leaderboard,
            tables,
            definitions,
            out,
            cache or out.parent / "cache",
            settings,
            encoding,
            device,
            encoders=encoders,
        )
        print_results(console, results)
        if not any(board.fronts for board in results.boards):
            console.print("no plot: no two systems of one benchmark have both a quality and a cost", markup=False)
            return
        with atomic_write(plot, "wb") as handle:
            handle.write(draw(results.boards))
        with atomic_write(data) as handle:
            handle.write(points_csv(results.boards))
        console.print(f"plot    {plot}, its data {data}", markup=False)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem evaluate efficiency`."""
    parse_and_call(efficiency, argv, prog="mecellem evaluate efficiency")
    return 0
