"""Take evaluation sets out of the training text: documents that share a run of words with an evaluation item.

datatrove's decontamination is not used: its index needs lighteval's tasks, and its text form lower-cases "I" to "i", so that
Turkish capitals never match. Here words are folded by Turkish rules, runs are found by rolling hashes in numpy and then
compared word by word, so a hit is never a collision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import orjson
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mecellem.errors import UserError
from preprocessing.jsonl import check_inputs, json_type, read_line_blocks
from preprocessing.turkish import fold, words

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing modulo 2^64

_SHOWN = 80  # characters of a run
_BLOCK = 1 << 22  # bytes of an evaluation set that are read at once


class DecontaminateSettings(BaseModel):
    """Which evaluation sets, and what counts as sharing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sets: dict[str, tuple[Path, ...]] = Field(
        description="name of an evaluation set -> its .jsonl(.gz/.zst) files, whose strings, at any depth, are its text",
        min_length=1,
    )
    fields: tuple[str, ...] = Field(default=(), description="names of the top-level fields to take text from; none means all")
    ngram: int = Field(default=13, ge=2, description="words of a run: GPT-3's 13")
    shortest: int = Field(
        default=8, ge=1, description="an item of fewer words than ngram counts as a whole from so many words on: our choice"
    )
    action: Literal["drop", "cut"] = Field(default="drop", description="drop the document, or cut the lines that hold the run")
    min_words: int = Field(default=50, ge=0, description="with cut, fewest words that must be left: Gopher's shortest document")


class _Runs(NamedTuple):
    """The runs of one length, each hash once (sorted) with the first place that has it."""

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]  # where the run starts in the words of all sets


class NgramIndex:
    """The runs of all evaluation sets, by length, in flat arrays: 16 bytes a run."""

    def __init__(self, settings: DecontaminateSettings) -> None:
        self._ids: dict[str, int] = {}
        self._set_names = sorted(settings.sets)
        items: list[NDArray[np.int64]] = []
        set_ends = []
        for name in self._set_names:
            items += self._read(name, settings)
            set_ends.append(sum(map(len, items)))
        self._set_ends = np.array(set_ends, np.int64)
        self._words = np.concatenate(items) if items else np.zeros(0, np.int64)
        self._runs = _index(items, settings.ngram)

    def _read(self, name: str, settings: DecontaminateSettings) -> list[NDArray[np.int64]]:
        items = []
        for item in _items(name, settings):
            numbers = (self._ids.setdefault(word, len(self._ids) + 1) for word in item)
            items.append(np.fromiter(numbers, np.int64, len(item)))
        return items

    def find(self, text: list[str]) -> dict[int, tuple[str, int]]:
        """Start of each shared run -> (evaluation set, words of the run). `text`: folded words."""
        known = self._ids.get
        ids = np.fromiter((known(word, 0) for word in text), np.int64, len(text))
        # a run with a word that no set has cannot be shared: most of a document is out by this alone
        unknown = np.concatenate([[0], np.cumsum(ids == 0)])
        found: dict[int, tuple[str, int]] = {}
        for length, runs in self._runs.items():
            possible = np.flatnonzero(unknown[length:] == unknown[:-length]) if len(ids) >= length else ()
            if not len(possible):
                continue
            hashes = _rolling(_scrambled(ids), length)[possible]
            at = np.minimum(np.searchsorted(runs.hashes, hashes), len(runs.hashes) - 1)
            hit = runs.hashes[at] == hashes
            for start, place in zip(possible[hit].tolist(), runs.starts[at[hit]].tolist(), strict=True):
                if np.array_equal(self._words[place : place + length], ids[start : start + length]):
                    found.setdefault(start, (self._set_of(place), length))
        return found

    @property
    def shortest(self) -> int:
        """Words of the shortest run."""
        return min(self._runs)

    def _set_of(self, place: int) -> str:
        return self._set_names[int(np.searchsorted(self._set_ends, place, side="right"))]


class DecontaminateFilter(BaseFilter):
    """Drop or cut documents that share a run of words with an evaluation set; `contaminated_<set>` counts them."""

    name = "decontaminate"
    REASONS: ClassVar[dict[str, str]] = {
        "contaminated": "it shares a run of words with an evaluation set",
        "contaminated_rest_too_short": "too little is left without the lines shared with an evaluation set",
    }

    def __init__(self, settings: DecontaminateSettings) -> None:
        """Raises `UserError` for a set that cannot be read, or that nothing could ever be found of."""
        super().__init__()
        known: set[str] = set()
        for name, paths in settings.sets.items():
            check_inputs(paths, f"stage decontaminate, set {name!r}")
            known |= _check_set(name, settings)
        if unknown := [field for field in settings.fields if field not in known]:
            raise UserError(
                f"stage decontaminate: no record of any set has the field {' or '.join(unknown)}; the fields are "
                f"{', '.join(sorted(known)[:12])}: mend `fields`"
            )
        self.settings = settings

    @cached_property
    def index(self) -> NgramIndex:
        """Read when the first document comes, in the process that meets it; the same in every task."""
        files = [path.stat() for paths in self.settings.sets.values() for path in paths]
        seen = tuple((file.st_size, file.st_mtime_ns) for file in files)
        return _shared_index(self.settings.model_dump_json(), seen)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep the document, whole or without the lines it shares; `metadata["contaminated_by"]` names the sets.

        One that is shorter than every run that is looked for is kept, and counted as `too_short_to_judge`.
        """
        lines = [words(fold(line)) for line in doc.text.split("\n")]
        everything = [word for line in lines for word in line]
        if len(everything) < self.index.shortest:
            self.stat_update("too_short_to_judge")
            return True
        found = self.index.find(everything)
        if not found:
            return True
        sets = sorted({name for name, _ in found.values()})
        doc.metadata["contaminated_by"] = sets
        doc.metadata["drop_detail"] = _shown(everything, found)
        self.stat_update(*(f"contaminated_{name}" for name in sets))
        if self.settings.action == "drop":
            return False, "contaminated"
        line_of = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
        shared = {number for start, (_, length) in found.items() for number in line_of[start : start + length].tolist()}
        if sum(len(line) for number, line in enumerate(lines) if number not in shared) < max(1, self.settings.min_words):
            return False, "contaminated_rest_too_short"
        kept = (line for number, line in enumerate(doc.text.split("\n")) if number not in shared)
        doc.text = "\n".join(kept).strip()
        self.stat_update(*(f"changed_cut_by_{name}" for name in sets))
        return True


@lru_cache(maxsize=1)
def _shared_index(settings: str, seen: tuple[tuple[int, int], ...]) -> NgramIndex:
    """The index that a process keeps from task to task. `seen`: size and time of change of the files."""
    return NgramIndex(DecontaminateSettings.model_validate_json(settings))


def _shown(text: list[str], found: dict[int, tuple[str, int]]) -> str:
    """Each evaluation set with the first run that the document shares with it, shortened."""
    first = {name: (start, length) for start, (name, length) in sorted(found.items(), reverse=True)}
    runs = {name: " ".join(text[start : start + length]) for name, (start, length) in sorted(first.items())}
    return "; ".join(f'{name}: "{run if len(run) <= _SHOWN else run[:_SHOWN].rstrip() + "..."}"' for name, run in runs.items())


def _index(items: list[NDArray[np.int64]], ngram: int) -> dict[int, _Runs]:
    """All runs of `ngram` words inside the items; a shorter item is one run of its own length."""
    parts: dict[int, list[tuple[NDArray[np.uint64], NDArray[np.int64]]]] = {}
    begin = 0
    for item in items:
        length = min(ngram, len(item))
        hashes = _rolling(_scrambled(item), length)
        parts.setdefault(length, []).append((hashes, begin + np.arange(len(hashes))))
        begin += len(item)
    runs = {}
    for length, pairs in sorted(parts.items(), reverse=True):
        hashes, first = np.unique(np.concatenate([pair[0] for pair in pairs]), return_index=True)
        runs[length] = _Runs(hashes, np.concatenate([pair[1] for pair in pairs])[first])
    return runs


def _scrambled(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A 64-bit number for each word id (splitmix64's steps), so that sums of them rarely meet."""
    value = (ids.astype(np.uint64) + np.uint64(1)) * _BASE
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _rolling(values: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Hash of every run of `length` values: their sum, each times a power of the base by its place, modulo 2^64."""
    runs = len(values) - length + 1
    total = np.zeros(runs, np.uint64)
    for offset in range(length):
        total = total * _BASE + values[offset : offset + runs]
    return total


def _items(name: str, settings: DecontaminateSettings) -> Iterator[list[str]]:
    """The folded words of every text of a set that is long enough to be looked for."""
    for record in _records(settings.sets[name]):
        for text in _strings(_wanted(record, settings.fields)):
            item = words(fold(text))
            if len(item) >= min(settings.shortest, settings.ngram):
                yield item


def _check_set(name: str, settings: DecontaminateSettings) -> set[str]:
    """The fields of a set's records. Raises `UserError` for one without any run: it would let all documents through."""
    known: dict[str, None] = {}
    for record in _records(settings.sets[name]):  # each line, before hours of other stages
        known.update(dict.fromkeys(record))
    if next(_items(name, settings), None) is not None:
        return set(known)
    files = ", ".join(map(str, settings.sets[name]))
    if known and settings.fields and not set(settings.fields) & set(known):
        raise UserError(
            f"stage decontaminate, set {name!r}: no record of {files} has the field {' or '.join(settings.fields)}; the fields "
            f"are {', '.join(list(known)[:12])}: set `fields`"
        )
    least = min(settings.shortest, settings.ngram)
    raise UserError(
        f"stage decontaminate, set {name!r}: {files} {'has no text of' if known else 'is empty: it has no text of'} at least "
        f"{least} words, so nothing could be found: give another file, or lower `shortest` and `ngram`"
    )


def _wanted(record: dict[str, object], fields: tuple[str, ...]) -> dict[str, object]:
    return {key: record[key] for key in fields if key in record} if fields else record


def _records(paths: Iterable[Path]) -> Iterator[dict[str, object]]:
    for path in paths:
        for block in read_line_blocks(path, _BLOCK):
            for number, line in enumerate(block.data.split(b"\n"), start=block.first_line):
                if line.strip():
                    yield _record(path, number, line)


def _record(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}): an evaluation set has one JSON object a line") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}, line {number}: an evaluation set has one JSON object a line, not {json_type(record)}")
    return record


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
