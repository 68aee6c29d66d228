"""What happened to the documents: one ledger a task, which `status`, the limits and the report page only sum."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mecellem.errors import UserError

if TYPE_CHECKING:
    from datatrove.data import Document

EXAMPLES = 5  # of one reason
EXAMPLE_CHARACTERS = 200
FIELDS = 100  # names of a source's records that a ledger has
GROUPS = 10  # the largest groups of duplicates
LOCATIONS = 20  # of quarantined records of one reason; the quarantine files have them all


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Tally(_Model):
    """So many documents, with so many characters and words (runs of characters between white space)."""

    documents: int = 0
    characters: int = 0
    words: int = 0

    def count(self, characters: int, words: int, documents: int = 1) -> None:
        """Add documents."""
        self.documents += documents
        self.characters += characters
        self.words += words

    def add(self, other: Tally) -> None:
        """Add another tally."""
        self.count(other.characters, other.words, other.documents)


class SourceLedger(_Model):
    """What happened to one source's documents.

    `lengths_*` count documents by the number of bits of their length in characters, so 10 is 512 to 1,023 characters.
    `languages` and `languages_dropped` count what stayed and what went, where the stage language has named it.
    `quarantined` are records that could not be read, `skipped` those that are no text by nature (a WARC's images). `fields`
    counts the documents that have each of the source's `keep_fields`; where one has none, `other_fields` are names that its
    records have.
    """

    entered: Tally = Field(default_factory=Tally)
    kept: Tally = Field(default_factory=Tally)
    dropped: dict[str, Tally] = {}
    quarantined: dict[str, int] = {}
    skipped: dict[str, int] = {}
    lengths_entered: dict[int, int] = {}
    lengths_kept: dict[int, int] = {}
    languages: dict[str, int] = {}
    languages_dropped: dict[str, int] = {}
    fields: dict[str, int] = {}
    other_fields: list[str] = []

    @property
    def came_in(self) -> int:
        """Documents that the stage saw, those included that could not be read."""
        return self.entered.documents + sum(self.quarantined.values())

    def add(self, other: SourceLedger) -> None:
        """Add what happened in another task."""
        self.entered.add(other.entered)
        self.kept.add(other.kept)
        for reason, tally in other.dropped.items():
            self.dropped.setdefault(reason, Tally()).add(tally)
        for name in ("quarantined", "skipped", "lengths_entered", "lengths_kept", "languages", "languages_dropped", "fields"):
            _add_counts(getattr(self, name), getattr(other, name))
        self.other_fields = sorted({*self.other_fields, *other.other_fields})[:FIELDS]


class Example(_Model):
    """A document that was dropped: its first characters, where it came from, and what the stage measured.

    `duplicate_of` is the id of the document that stays in its place, `detail` what exactly led to the drop, for people;
    both are empty where the stage says nothing of the kind.
    """

    id: str
    origin: str
    text: str
    measures: dict[str, float] = {}
    duplicate_of: str = ""
    detail: str = ""

    def notes(self) -> list[str]:
        """What is known of it, for people: for what it went, then the measures."""
        said = [f"duplicate of {self.duplicate_of}"] if self.duplicate_of else []
        said += [self.detail] if self.detail else []
        return said + [f"{name} {value:g}" for name, value in sorted(self.measures.items())]


class Group(_Model):
    """Documents that are one to a stage that looks for duplicates: how many, and the one of them that stayed."""

    documents: int
    id: str
    origin: str
    text: str


class Location(_Model):
    """A record that could not be read, and why. `line` is 0 where the whole file is meant; `detail` is for people."""

    source: str
    file: str
    line: int
    detail: str


class TaskLedger(_Model):
    """What happened in one task, or in all tasks of a stage after `add`.

    `examples` and `locations` are by reason; `changed` counts what a stage changed in documents, `noted` what it found out
    about documents that it left alone; `alike` the groups of documents of which a stage that looks for duplicates kept one,
    by the size of the group, of which `largest` are some. `measures` are histograms of what a stage measured, by the
    measure's name, then "kept" or "dropped", then the value rounded to two significant digits.
    """

    sources: dict[str, SourceLedger] = {}
    examples: dict[str, list[Example]] = {}
    locations: dict[str, list[Location]] = {}
    changed: dict[str, int] = {}
    noted: dict[str, int] = {}
    alike: dict[int, int] = {}
    largest: list[Group] = []
    measures: dict[str, dict[str, dict[str, int]]] = {}

    def add(self, other: TaskLedger) -> None:
        """Add the ledger of another, later task."""
        for name, source in other.sources.items():
            self.sources.setdefault(name, SourceLedger()).add(source)
        for reason, examples in other.examples.items():
            self.examples[reason] = sorted([*self.examples.get(reason, []), *examples], key=_order)[:EXAMPLES]
        for reason, locations in other.locations.items():
            self.locations[reason] = [*self.locations.get(reason, []), *locations][:LOCATIONS]
        _add_counts(self.changed, other.changed)
        _add_counts(self.noted, other.noted)
        _add_counts(self.alike, other.alike)
        self.largest = sorted([*self.largest, *other.largest], key=_by_size)[:GROUPS]
        for name, groups in other.measures.items():
            for group, counts in groups.items():
                _add_counts(self.measures.setdefault(name, {}).setdefault(group, {}), counts)

    def total(self) -> SourceLedger:
        """All sources together."""
        whole = SourceLedger()
        for source in self.sources.values():
            whole.add(source)
        return whole


def read_ledger(path: Path) -> TaskLedger:
    """Read one ledger. Raises `UserError` for a file that is none."""
    try:
        return TaskLedger.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(f"{path} is not a ledger of this version: remove its stage's folder and run again") from None


def sum_ledgers(paths: Iterable[Path]) -> TaskLedger:
    """The ledgers of tasks, in the order of the tasks, as one."""
    whole = TaskLedger()
    for path in paths:
        whole.add(read_ledger(path))
    return whole


class Recorder:
    """Writes a task's ledger while the documents pass by."""

    def __init__(self) -> None:
        self.ledger = TaskLedger()
        self._entered: dict[int, tuple[str, int]] = {}  # a document that is under way -> its text then, its words

    def enter(self, document: Document) -> None:
        """A document comes in."""
        words = len(document.text.split())
        self._entered[id(document)] = (document.text, words)
        source = self._source(document)
        source.entered.count(len(document.text), words)
        _add_counts(source.lengths_entered, {len(document.text).bit_length(): 1})

    def keep(self, document: Document) -> None:
        """A document goes on to the next stage."""
        source, words = self._source(document), self._words(document)
        source.kept.count(len(document.text), words)
        _add_counts(source.lengths_kept, {len(document.text).bit_length(): 1})
        _add_counts(source.languages, _language(document))
        if (alike := _alike(document)) > 1:
            self._group(alike, document)
        self._measure("kept", document)

    def count_fields(self, document: Document, names: Sequence[str], times: int = 1) -> None:
        """Which of the fields that are to be kept a document has."""
        fields = self._source(document).fields
        for name in names:
            fields[name] = fields.get(name, 0) + (times if name in document.metadata else 0)

    def take_back(self, document: Document) -> None:
        """A document that was kept before all ids were known repeats an id: it is no document after all."""
        source, words = self._source(document), len(document.text.split())
        for tally, lengths in ((source.kept, source.lengths_kept), (source.entered, source.lengths_entered)):
            tally.count(-len(document.text), -words, -1)
            _add_counts(lengths, {len(document.text).bit_length(): -1})
            for length in [length for length, count in lengths.items() if not count]:
                del lengths[length]
        self.count_fields(document, list(source.fields), -1)

    def drop(self, document: Document, reason: str) -> None:
        """A document ends here, for `reason`."""
        source = self._source(document)
        source.dropped.setdefault(reason, Tally()).count(len(document.text), self._words(document))
        _add_counts(source.languages_dropped, _language(document))
        examples = self.ledger.examples.setdefault(reason, [])
        alike = _alike(document)
        examples.append(
            Example(
                id=document.id,
                origin=document.metadata["origin"],
                text=document.text[:EXAMPLE_CHARACTERS],
                measures=_finite(document.metadata.get("measures", {}) | ({"documents alike": alike} if alike > 1 else {})),
                duplicate_of=document.metadata.get("duplicate_of", ""),
                detail=document.metadata.get("drop_detail", ""),
            )
        )
        if len(examples) > EXAMPLES:
            examples.sort(key=_order)
            del examples[EXAMPLES:]
        self._measure("dropped", document)

    def quarantine(self, location: Location, reason: str) -> None:
        """A record cannot be read."""
        _add_counts(self.ledger.sources.setdefault(location.source, SourceLedger()).quarantined, {reason: 1})
        locations = self.ledger.locations.setdefault(reason, [])
        if len(locations) < LOCATIONS:
            locations.append(location)

    def skip(self, source: str, reason: str) -> None:
        """A record is no text by nature."""
        _add_counts(self.ledger.sources.setdefault(source, SourceLedger()).skipped, {reason: 1})

    def finish(self, changed: dict[str, int] | None = None, noted: dict[str, int] | None = None) -> TaskLedger:
        """The ledger, in an order of its own; `changed` and `noted` are what the stage counted."""
        self.ledger.changed, self.ledger.noted = dict(sorted((changed or {}).items())), dict(sorted((noted or {}).items()))
        for examples in self.ledger.examples.values():
            examples.sort(key=_order)
        return self.ledger

    def _source(self, document: Document) -> SourceLedger:
        return self.ledger.sources.setdefault(document.metadata["source"], SourceLedger())

    def _words(self, document: Document) -> int:
        text, words = self._entered.pop(id(document), (None, 0))
        return words if text is document.text else len(document.text.split())

    def _group(self, alike: int, document: Document) -> None:
        _add_counts(self.ledger.alike, {alike: 1})
        largest = self.ledger.largest
        if len(largest) < GROUPS or alike >= largest[-1].documents:
            text, origin = document.text[:EXAMPLE_CHARACTERS], document.metadata["origin"]
            largest.append(Group(documents=alike, id=document.id, origin=origin, text=text))
            largest.sort(key=_by_size)
            del largest[GROUPS:]

    def _measure(self, group: str, document: Document) -> None:
        for name, value in _finite(document.metadata.get("measures", {})).items():
            _add_counts(self.ledger.measures.setdefault(name, {}).setdefault(group, {}), {f"{value:.2g}": 1})


def _alike(document: Document) -> int:
    """How many documents are one, with the one that stays."""
    return document.metadata.get("duplicate_count", 0) + 1


def _language(document: Document) -> dict[str, int]:
    language = document.metadata.get("language")
    return {language: 1} if isinstance(language, str) else {}


def _finite(measures: dict[str, Any]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in measures.items()}
    return {name: round(value, 6) for name, value in numbers.items() if abs(value) < float("inf")}


def _add_counts(counts: dict[Any, int], more: dict[Any, int]) -> None:
    for key, count in more.items():
        counts[key] = counts.get(key, 0) + count


def _by_size(group: Group) -> tuple[int, bytes, str]:
    return -group.documents, _order(group), group.origin  # ids of several sources may be the same


def _order(example: Example | Group) -> bytes:
    """A fixed order that has nothing to do with the documents: the first few of it are a sample."""
    return hashlib.blake2b(example.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def most_common(counts: dict[str, int], number: int | None = None) -> list[tuple[str, int]]:
    """Reasons with their counts, the most frequent first; equal counts in the order of the alphabet."""
    return Counter(dict(sorted(counts.items()))).most_common(number)
