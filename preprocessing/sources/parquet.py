"""Parquet: a row a document, read a batch of rows at a time.

datatrove's ParquetReader counts only the rows that have text, so that a row's number is lost, and ends with pyarrow's
error where a file is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from preprocessing.sources.found import Found, Item, Part, Problem, Reading

_ROWS = 256


def read(part: Part, reading: Reading) -> Iterator[Item]:
    """Yield the rows of row groups `start` to `end`; a row's number counts from 1 over the whole file.

    A row group that cannot be read to its end is told of, and the next one is read.
    """
    import pyarrow
    import pyarrow.parquet

    first = part.first
    try:
        with pyarrow.parquet.ParquetFile(part.path) as file:
            names = [name for name in reading.columns if name in file.schema_arrow.names]
            for group in range(part.start, file.num_row_groups if part.end is None else part.end):
                rows = file.metadata.row_group(group).num_rows
                yield from _group(file, group, first, rows, names)
                first += rows
    except (pyarrow.ArrowException, OSError) as error:  # the footer: there are no row groups without it
        if isinstance(error, FileNotFoundError):
            raise
        yield Problem(first, "damaged_file", f"{_first_line(error)}; the file was read up to here")


def _group(file: Any, group: int, first: int, rows: int, names: list[str]) -> Iterator[Item]:
    import pyarrow

    number = first - 1
    try:
        for batch in file.iter_batches(_ROWS, row_groups=[group], columns=names, use_threads=False):
            for row in range(batch.num_rows):
                number += 1
                yield _row(number, row, batch, names)
    except (pyarrow.ArrowException, OSError) as error:
        detail = f"{_first_line(error)}; rows {number + 1:,} to {first + rows - 1:,} (row group {group}) are lost"
        yield Problem(number + 1, "damaged_file", detail)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _row(number: int, row: int, batch: Any, names: list[str]) -> Item:
    fields: dict[str, Any] = {}
    for name in names:
        try:
            fields[name] = batch.column(name)[row].as_py()
        except UnicodeDecodeError as error:
            return Problem(number, "not_utf8", f"field {name!r}, byte {error.start}", bytes(error.object)[:4096])
        except (ArithmeticError, ValueError) as error:  # dates that Python's calendar does not have
            return Problem(number, "broken_field", f"field {name!r}: {_first_line(error)}")
    return Found(number, fields)


def row_groups(path: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The column names of a file, and (rows, bytes) of each row group. Raises pyarrow's errors and `OSError`."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        return file.schema_arrow.names, [(group.num_rows, group.total_byte_size) for group in groups]
