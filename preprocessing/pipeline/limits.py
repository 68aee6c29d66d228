"""How much may be wrong with a source before the run stops: held against the whole, and early where nothing can mend it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mecellem.errors import UserError
from preprocessing.pipeline.config import Limits
from preprocessing.pipeline.ledger import Location, SourceLedger, TaskLedger, most_common, read_ledger
from preprocessing.pipeline.plan import Plan
from preprocessing.sources.documents import first_names
from preprocessing.sources.found import PROBLEMS

_ALIKE = 0.75  # of difflib's ratio: "tarihi" and "tarih" are, "title" and "file" are not


def check_limits(ledger: TaskLedger, limits: dict[str, Limits], quarantine: Path) -> None:
    """Raise `UserError` when more of a source is broken than its limits allow; `ledger` is of all tasks."""
    for name, source in ledger.sources.items():
        _check(name, source, ledger.locations, limits[name], quarantine, whole=True)


def check_fields(ledger: TaskLedger) -> None:
    """Raise `UserError` for a name in `keep_fields` that no record had and that is another one mistyped, by its looks."""
    for name, source in ledger.sources.items():
        for field in _absent(source):
            if near := _nearest(field, source.other_fields, [name for name, count in source.fields.items() if count]):
                raise UserError(
                    f"source {name}: no record has the field {field!r} that `keep_fields` names: did you mean {near!r}? Mend "
                    "the name, or take it out, and run the same command again"
                )


def field_notes(ledger: TaskLedger) -> list[str]:
    """Sentences about names in `keep_fields` that no record had: a field that only some records have may well be missing."""
    return [
        f"source {name}: no record has the field {field!r} that `keep_fields` names; the fields are "
        f"{', '.join(source.other_fields[:12]) or 'the text alone'}"
        for name, source in sorted(ledger.sources.items())
        for field in _absent(source)
    ]


def _absent(source: SourceLedger) -> list[str]:
    return [field for field, count in source.fields.items() if not count and source.entered.documents]


def check_first_records(plan: Plan, stages: Path) -> None:
    """Asked before an earlier run's reading is removed: `UserError` for names that look mistyped in a source's first records.

    Those may lack a field that later ones have, so the sentence tells how to go on with the name as it is.
    """
    seen: set[str] = set()
    for task in plan.tasks:
        reading = task.reading
        if reading.source in seen or reading.kind in ("parquet", "pdf"):  # columns are checked; pages may cost OCR
            continue
        seen.add(reading.source)
        there = first_names(task.parts, reading)
        for key, field in [("text_field", reading.text_field), *(("keep_fields", name) for name in reading.keep_fields)]:
            if field not in there and (near := _nearest(field, there, reading.columns)):
                raise UserError(
                    f"source {reading.source}: none of the first records has the field {field!r} that `{key}` names: did you "
                    f"mean {near!r}? Nothing was removed; if the name is right, remove {stages} and run the same command again"
                )


def _nearest(field: str, names: Iterable[str], kept: Iterable[str]) -> str | None:
    """The name that was meant, if there is one like it that is not kept itself."""
    others = {name.casefold(): name for name in names if name not in {field, *kept}}
    found = difflib.get_close_matches(field.casefold(), others, 1, _ALIKE)
    return others[found[0]] if found else None


class EarlyLimits:
    """Holds finished tasks of reading against the limits, so that a hopeless run stops before its end.

    It stops only where the end would: when there are more broken records than `count`, or more vanished or damaged files
    than `missing_files` and `damaged_files`, which more tasks cannot mend, and over `share` when a source has been read to
    its end. So the verdict does not depend on the order in which tasks finish; the counts in the sentence may.
    """

    def __init__(self, plan: Plan, limits: dict[str, Limits], ledgers: Path) -> None:
        self._limits = limits
        self._folder = ledgers
        self._sources = [task.reading.source for task in plan.tasks]
        self._left = Counter(self._sources)
        self._sum = TaskLedger()

    def add(self, task: int) -> None:
        """Count a finished task. Raises `UserError` when more of its source is broken than can be allowed."""
        name = self._sources[task]
        self._left[name] -= 1
        self._sum.add(read_ledger(self._folder / f"{task:05d}.json"))
        if source := self._sum.sources.get(name):
            quarantine = self._folder.parent / "quarantine"
            _check(name, source, self._sum.locations, self._limits[name], quarantine, whole=not self._left[name])


def _check(
    name: str, source: SourceLedger, locations: dict[str, list[Location]], limit: Limits, quarantine: Path, whole: bool
) -> None:
    """`whole`: the source was read to its end."""
    missing = source.quarantined.get("missing_file", 0)
    if missing > limit.missing_files:
        place = _place(name, locations, "missing_file")
        where = f" ({place.file}: {place.detail})" if place else ""
        files = "file" if missing == 1 else "files"
        raise UserError(
            f"source {name}: {missing:,} {files} vanished or cannot be opened{where}: bring back what is "
            f"missing and run the same command again, or raise `limits: missing_files` (now {limit.missing_files:,})"
        )
    damaged = source.quarantined.get("damaged_file", 0)
    if damaged > limit.damaged_files:
        place = _place(name, locations, "damaged_file")
        where = f", such as in {place.file}: {place.detail}" if place else ""
        places = f"{damaged:,} place{'' if damaged == 1 else 's'}"
        raise UserError(
            f"source {name}: files are cut or broken in {places}{where}. What could be read around the damage was read; fetch "
            "the files again and run the same command, or go on without what is lost: `limits: damaged_files` (now "
            f"{limit.damaged_files:,})"
        )
    broken = sum(source.quarantined.values()) - missing - damaged
    total = broken + source.entered.documents
    if broken <= limit.count and (not whole or broken <= limit.share * total):
        return
    of_files = ("missing_file", "damaged_file")
    reason, count = most_common({key: value for key, value in source.quarantined.items() if key not in of_files})[0]
    place = _place(name, locations, reason)
    at = f", such as {place.file}, line {place.line}" if place else ""
    raise UserError(
        f"source {name}: {broken:,} of {total:,} records{'' if whole else ' so far'} cannot be read, most of them ({count:,}) "
        f"because {PROBLEMS[reason]}{at}: all are listed in {quarantine}; repair the source, or raise `limits: share` "
        f"(now {limit.share:g}) and `limits: count` (now {limit.count:,})"
    )


def _place(source: str, locations: dict[str, list[Location]], reason: str) -> Location | None:
    """Where a record of that source and reason stands, if the ledger at hand names one."""
    return next((place for place in locations.get(reason, []) if place.source == source), None)
