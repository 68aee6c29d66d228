"""A block of JSON lines as columns: all texts end to end, where each begins, and whose they are.

pyarrow reads a block some ten times faster than Python reads its lines, and without holding the interpreter. It is
believed only where it and `preprocessing.jsonl`, line by line, could not differ; any other block goes through the
latter, which also says which line is wrong and how.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.jsonl import UNKNOWN_LICENCE, LineBlock, records_of

if TYPE_CHECKING:
    import pyarrow

_NEWLINE, _RETURN, _OPEN, _CLOSE = b"\n\r{}"
_PIECE = 1 << 17  # bytes that are looked through at a time
# What pyarrow takes for a number and JSON has no word for.
_NOT_A_NUMBER = re.compile(rb"(?:NaN|Inf(?:inity)?)\s*[,}\]]")


@dataclass(frozen=True, slots=True)
class Run:
    """So many documents in a row of one source and licence."""

    documents: int
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents in a row: document i is the UTF-8 in `data[offsets[i]:offsets[i + 1]]`.

    `offsets` is int64 (documents + 1,), `data` uint8. `runs` cover them in order.
    """

    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]
    runs: Sequence[Run]

    def __len__(self) -> int:
        return self.offsets.size - 1

    @property
    def text_bytes(self) -> int:
        """Bytes of UTF-8 in all texts together."""
        return int(self.offsets[-1] - self.offsets[0])

    def text(self, number: int) -> str:
        """One document's text."""
        start, end = self.offsets[number : number + 2]
        return self.data[start:end].tobytes().decode()

    def texts(self) -> list[str]:
        """Every document's text."""
        return [self.text(number) for number in range(len(self))]


def documents_of(texts: Sequence[str], runs: Sequence[Run] = ()) -> Documents:
    """Texts that Python holds already, as columns."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return Documents(offsets, np.frombuffer(b"".join(encoded), np.uint8), runs)


def parse_block(block: LineBlock) -> Documents:
    """The documents of a block of lines. Raises `UserError` for a bad line, as `preprocessing.jsonl` does."""
    return _parse_columns(block) or _parse_lines(block)


def _parse_lines(block: LineBlock) -> Documents:
    records = list(records_of(block))
    return documents_of([record.text for record in records], _runs((record.source, record.licence) for record in records))


def _runs(owners: Iterable[tuple[str, str]]) -> list[Run]:
    runs: list[Run] = []
    last, count = None, 0
    for owner in owners:
        if owner != last:
            if last is not None:
                runs.append(Run(count, *last))
            last, count = owner, 0
        count += 1
    return runs if last is None else [*runs, Run(count, *last)]


def _parse_columns(block: LineBlock) -> Documents | None:
    """The block as pyarrow reads it; None where `preprocessing.jsonl` might read it in another way, or refuse it."""
    lines = _objects_alone_on_their_lines(block.data)
    if not lines or _has_odd_numbers(block.data):
        return None
    table = _read_with_pyarrow(block.data)
    # As many objects as lines, each of which starts with "{" and ends with "}": so each line is one object. An object
    # over several lines would need one that goes on after a "}" with "{", and then some line would have two.
    if table is None or table.num_rows != lines:
        return None
    text = table.column("text").combine_chunks()
    if text.null_count:
        return None
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    data = text.buffers()[2]
    return Documents(offsets, np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), _table_runs(table, block.path))


def _objects_alone_on_their_lines(data: bytes) -> int:
    """The number of lines, if every line starts with "{" and ends with "}" and none holds a NUL; else 0."""
    if b"\0" in data:  # ends pyarrow's reading
        return 0
    characters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(characters == _NEWLINE)
    if not data.endswith(b"\n"):
        ends = np.append(ends, characters.size)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (ends - starts < 2).any():
        return 0
    last = ends - 1
    last -= characters[last] == _RETURN
    objects = (characters[starts] == _OPEN).all() and (characters[last] == _CLOSE).all()
    return ends.size if objects else 0


def _has_odd_numbers(data: bytes) -> bool:
    """Whether one of the words may stand where a value does. Pieces that stay in the cache: six times `bytes.find`."""
    characters = np.frombuffer(data, np.uint8)
    for start in range(0, characters.size - 2, _PIECE):
        part = characters[start : start + _PIECE + 2]
        for first, middle, last in (b"NaN", b"Inf"):
            places = np.flatnonzero((part[:-2] == first) & (part[2:] == last))
            places = places[part[places + 1] == middle]
            if any(_NOT_A_NUMBER.match(data, start + place) for place in places.tolist()):
                return True
    return False


def _read_with_pyarrow(data: bytes) -> pyarrow.Table | None:
    import pyarrow
    import pyarrow.json

    text = pyarrow.large_string()
    schema = pyarrow.schema([("text", text), ("source", pyarrow.string()), ("licence", pyarrow.string())])
    buffer = pyarrow.py_buffer(data)
    try:
        # All of the block is looked at here, also the fields that are not read.
        bounds = pyarrow.py_buffer(np.array([0, len(data)], np.int64))
        pyarrow.Array.from_buffers(text, 1, [None, bounds, buffer]).validate(full=True)
        return pyarrow.json.read_json(
            buffer,
            # One thread, one chunk: the other core is at the block before this one.
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data)),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except (pyarrow.ArrowInvalid, UnicodeDecodeError):
        return None


def _table_runs(table: pyarrow.Table, path: Path) -> list[Run]:
    columns = (table.column("source"), table.column("licence"))
    defaults = (path.name, UNKNOWN_LICENCE)
    if all(column.null_count == len(column) for column in columns):
        return [Run(table.num_rows, *defaults)]
    codes, names = zip(*map(_codes, columns, defaults), strict=True)
    changes = np.flatnonzero((np.diff(codes[0]) != 0) | (np.diff(codes[1]) != 0)) + 1
    starts = np.concatenate(([0], changes))
    lengths = np.diff(np.append(starts, table.num_rows))
    return [
        Run(int(length), *(values[code[start]] for values, code in zip(names, codes, strict=True)))
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]


def _codes(column: pyarrow.ChunkedArray, default: str) -> tuple[NDArray[Any], list[str]]:
    """Each row's number in a list of values that has every value once; `default` stands where the row has none."""
    # not `fill_null`: to make a scalar, pyarrow imports pandas, which takes a tenth of a second
    encoded = column.combine_chunks().dictionary_encode("encode")
    values = [default if value is None else value for value in encoded.dictionary.to_pylist()]
    number = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return np.array([number[value] for value in values])[encoded.indices.to_numpy()], list(number)
