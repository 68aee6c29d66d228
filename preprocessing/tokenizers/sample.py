"""A stratified sample of a corpus: so many bytes of each source, in two passes, with memory for one document.

The first pass counts, the second takes every n-th document of a source, n being what the source's share asks for: each
document of a source has the same chance, long or short, and the sample is spread over the whole source. No random
number is drawn, so the same files give the same sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path

from mecellem.errors import UserError
from preprocessing.jsonl import Record, read_records


@dataclass(frozen=True, slots=True)
class SourceShare:
    """What a source has and what is wanted of it, in bytes of text; `share` is the part of its documents to take."""

    available: int
    wanted: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.wanted / self.available) if self.available else 0.0


def plan_sample(paths: Sequence[Path], sample_bytes: int, weights: Mapping[str, float] | None = None) -> dict[str, SourceShare]:
    """Read the files once and divide `sample_bytes` among their sources by `weights` (1 where none is given).

    A source that has less than its part gives all that it has, and the others share the rest. Raises `UserError` for a
    weight that is not above 0 or that is of a source which the files do not have.
    """
    if sample_bytes <= 0:
        raise UserError(f"--sample-bytes {sample_bytes}: a number above 0 is needed")
    weights = dict(weights or {})
    for name, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise UserError(f"--sample-weights: {name} has the weight {weight}, which has to be above 0 and finite")
    available: dict[str, int] = {}
    for path in paths:
        for record in read_records(path):
            available[record.source] = available.get(record.source, 0) + len(record.text.encode())
    if unknown := sorted(weights.keys() - available.keys()):
        raise UserError(
            f"--sample-weights names {', '.join(unknown)}, the files have the sources {', '.join(sorted(available))}: "
            "name one of these"
        )
    wanted = _divide(available, {name: weights.get(name, 1.0) for name in available}, sample_bytes)
    return {name: SourceShare(available[name], wanted[name]) for name in sorted(available)}


def _divide(available: Mapping[str, int], weights: Mapping[str, float], total: int) -> dict[str, int]:
    wanted: dict[str, int] = {}
    left, rest = total, set(available)
    while rest:
        weight = sum(weights[name] for name in sorted(rest))
        part = {name: int(left * weights[name] / weight) for name in rest}
        small = {name for name in rest if available[name] <= part[name]}
        for name in small or rest:
            wanted[name] = available[name] if small else part[name]
        left -= sum(available[name] for name in small)
        rest = rest - small if small else set()
    return wanted


def read_sample(paths: Sequence[Path], plan: Mapping[str, SourceShare]) -> Iterator[Record]:
    """Read the files again and yield the sample's documents in the files' order."""
    seen = dict.fromkeys(plan, 0)
    for path in paths:
        for record in read_records(path):
            share, number = plan[record.source].share, seen[record.source]
            seen[record.source] = number + 1
            if floor((number + 1) * share + 0.5) > floor(number * share + 0.5):
                yield record
