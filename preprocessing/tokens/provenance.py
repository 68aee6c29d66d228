"""Which documents of a corpus came from which source, under which licence."""

from __future__ import annotations

from collections.abc import Iterable

from mecellem.errors import UserError
from mecellem.manifest import SourceRange
from preprocessing.tokens.documents import Run

_MAX_RANGES = 100_000


class Provenance:
    """Gathers runs of documents, in the order of the documents; neighbours of one source and licence become one range."""

    def __init__(self) -> None:
        self._lasts: list[int] = []
        self._owners: list[tuple[str, str]] = []

    def add(self, runs: Iterable[Run]) -> None:
        """Append runs. Raises `UserError` where the ranges become too many for a manifest."""
        for run in runs:
            end = (self._lasts[-1] if self._lasts else 0) + run.documents
            owner = (run.source, run.licence)
            if self._owners and self._owners[-1] == owner:
                self._lasts[-1] = end
                continue
            if len(self._owners) == _MAX_RANGES:
                raise UserError(
                    f'the documents change their "source" or "licence" more than {_MAX_RANGES:,} times: '
                    "sort the lines by source, or give one file for each"
                )
            self._lasts.append(end)
            self._owners.append(owner)

    def add_ranges(self, ranges: Iterable[SourceRange]) -> None:
        """Append the ranges of another corpus, as runs."""
        self.add(Run(part.last - part.first, part.source, part.licence) for part in ranges)

    @property
    def ranges(self) -> list[SourceRange]:
        """What the manifest says."""
        owned = zip(self._lasts, self._owners, strict=True)
        return [
            SourceRange(first=first, last=last, source=source, licence=licence)
            for first, (last, (source, licence)) in zip([0, *self._lasts], owned, strict=False)
        ]
