"""Hugging Face data sets: an id of the hub, a folder that `datasets` can load, or one that `save_to_disk` wrote.

What has a row count is read in ranges of rows; what is streamed from the hub in the shards it is stored in. datatrove's
HuggingFaceDatasetReader makes the shards depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mecellem.errors import UserError
from preprocessing.sources.found import Found, Item, Part, Problem, Reading

_SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` leaves


def read(part: Part, reading: Reading) -> Iterator[Item]:
    """Yield the rows of a part; a row's number counts from 1 over the data set, or over the shard of a streamed one."""
    rows = open_dataset(part.path, reading.options)
    if hasattr(rows, "num_rows"):
        for at in range(part.start, rows.num_rows if part.end is None else part.end):
            yield _row(at + 1, rows, at)
        return
    number = 0
    try:
        for number, fields in enumerate(rows.shard(num_shards=rows.num_shards, index=part.start), start=1):
            yield Found(number, fields)
    except Exception as error:  # of pyarrow, pandas, json or the network: the loaders of `datasets` have no common one
        if isinstance(error, UserError):
            raise
        yield Problem(number + 1, "damaged_file", f"{_told(error)}; the shard was read up to here")


def _row(number: int, rows: Any, at: int) -> Item:
    try:
        return Found(number, rows[at])
    except UnicodeDecodeError as error:
        return Problem(number, "not_utf8", f"byte {error.start} of a field")
    except (ArithmeticError, ValueError, OSError) as error:
        return Problem(number, "broken_field", _told(error))


def _told(error: Exception) -> str:
    """The first line of what the innermost error says: `datasets` wraps the telling one in general ones."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def open_dataset(path: str, options: dict[str, Any]) -> Any:
    """The split as a `datasets.Dataset` (saved to disk) or `IterableDataset` (else). Raises `UserError`."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise UserError("kind: hub needs the package datasets: pip install -e '.[demo]' or pip install datasets") from None
    try:
        if any((Path(path) / name).exists() for name in _SAVED):
            saved = datasets.load_from_disk(path)
            return saved[options["split"]] if isinstance(saved, datasets.DatasetDict) else saved
        return datasets.load_dataset(
            path, options["config"], split=options["split"], revision=options["revision"], streaming=True
        )
    except (OSError, ValueError, KeyError) as error:  # what datasets raises for names, splits and connections
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the data set {path} cannot be opened ({reason}): check its id or folder, config and split") from None


def parts(path: str, options: dict[str, Any], shard_size: int) -> list[Part]:
    """Cut a data set into parts: ranges of rows of about `shard_size` bytes, or the shards that it is stored in."""
    rows = open_dataset(path, options)
    if not hasattr(rows, "num_rows"):
        return [Part(path, number, start=number) for number in range(rows.num_shards)]
    size = max(1, shard_size * rows.num_rows // max(1, rows.data.nbytes))
    return [Part(path, 0, at, min(at + size, rows.num_rows), at + 1) for at in range(0, rows.num_rows, size)]
