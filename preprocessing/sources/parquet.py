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
    """Yield the rows of row groups `start` to `end`; a row's number counts from 1 over the whole file."""
    import pyarrow
    import pyarrow.parquet

    number = part.first - 1
    try:
        with pyarrow.parquet.ParquetFile(part.path) as file:
            groups = range(part.start, file.num_row_groups if part.end is None else part.end)
            names = [name for name in reading.columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(_ROWS, row_groups=list(groups), columns=names, use_threads=False):
                for row in range(batch.num_rows):
                    number += 1
                    yield _row(number, row, batch, names)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        detail = str(error).splitlines()[0]
        yield Problem(number + 1, "damaged_file", f"{detail}; the file was read up to here")


def _row(number: int, row: int, batch: Any, names: list[str]) -> Item:
    try:
        return Found(number, {name: batch.column(name)[row].as_py() for name in names})
    except UnicodeDecodeError as error:
        return Problem(number, "not_utf8", f"byte {error.start} of the text", bytes(error.object)[:4096])


def row_groups(path: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The column names of a file, and (rows, bytes) of each row group. Raises pyarrow's errors and `OSError`."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        return file.schema_arrow.names, [(group.num_rows, group.total_byte_size) for group in groups]
