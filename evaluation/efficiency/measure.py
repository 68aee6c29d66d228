"""Everything checked first, each system measured once, then one board a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from evaluation.cache import Cache
from evaluation.efficiency import definitions as definition_files
from evaluation.efficiency.boards import make_board
from evaluation.efficiency.cost import Opener, cached_costs, check_sources, open_system
from evaluation.efficiency.leaderboard import read_leaderboard
from evaluation.efficiency.results import Costs, EfficiencyResults
from evaluation.efficiency.settings import EfficiencySettings
from evaluation.efficiency.table import Table, read_table
from evaluation.efficiency.workload import read_workload
from evaluation.encoders.own_settings import read_own_settings
from evaluation.encoders.settings import EncoderSettings
from evaluation.machine import hardware_line, versions
from evaluation.results import write_record
from mecellem.console import console
from mecellem.errors import UserError
from post_training.model_folder import pick_device


def rank_systems(
    systems: Sequence[str],
    texts: Sequence[Path],
    leaderboard: Path | None,
    tables: Sequence[Path],
    definitions: Path | None,
    out: Path,
    cache: Path,
    settings: EfficiencySettings,
    encoding: EncoderSettings,
    device: str = "auto",
    opener: Opener = open_system,
    encoders: Path | None = None,
) -> EfficiencyResults:
    """Measure `systems`, join them with the qualities that are known, rank all boards, and write `out` (JSON).

    `encoders`: a file of single systems' settings (`read_own_settings`); `encoding` holds for all others.
    Raises `UserError` for bad input before anything is measured.
    """
    chosen = definition_files.read_definitions(definitions or definition_files.DEFAULT)
    boards = [read_table(path) for path in tables]
    if leaderboard is not None:
        boards.append(read_leaderboard(leaderboard, settings.legal_tasks))
    if not systems and not boards:
        raise UserError("there is nothing to rank: name systems, or give --table or --leaderboard")
    place = pick_device(device)
    measured, own = measure_systems(systems, texts, settings, encoding, place, Cache(cache), opener, encoders)
    hardware = hardware_line(place)
    say_unmatched(measured, boards)
    results = EfficiencyResults(
        boards=[
            make_board(board, measured, chosen, hardware, settings.index_precision, settings.pareto_quality) for board in boards
        ],
        measured=measured,
        settings=asdict(settings) | asdict(encoding) | {"own": {name: asdict(found) for name, found in own.items()}},
        versions=versions(),
        hardware=hardware,
    )
    write_record(out, results)
    return results


def measure_systems(
    specs: Sequence[str],
    texts: Sequence[Path],
    settings: EfficiencySettings,
    encoding: EncoderSettings,
    device: str,
    store: Cache,
    opener: Opener,
    encoders: Path | None = None,
) -> tuple[list[Costs], dict[str, EncoderSettings]]:
    """The costs of all systems, one after another, and the settings of those that have their own."""
    if not specs:
        if encoders:
            raise UserError(f"--encoders {encoders}: there are no systems that it could be for: name them, or leave it out")
        return [], {}
    sources = check_sources(specs, store.folder)
    own = read_own_settings(encoders, encoding, sources)
    workload = read_workload(texts, settings)
    found = []
    for number, source in enumerate(sources, start=1):
        console().print(f"system {number} of {len(sources)}: {source.name}", markup=False)
        found.append(cached_costs(source, workload, settings, own.get(source.name, encoding), device, store, opener))
    return found, own


def say_unmatched(measured: Sequence[Costs], boards: Sequence[Table]) -> None:
    """Name the systems whose costs no quality stands against."""
    known = {row.name for board in boards for row in board.rows}
    unmatched = [costs.name for costs in measured if costs.name not in known]
    if unmatched:
        console().print(
            f"{', '.join(unmatched)}: no table and no leaderboard has a row of this name, so only the costs are told; "
            "join a system to a row with NAME=MODEL",
            markup=False,
        )
