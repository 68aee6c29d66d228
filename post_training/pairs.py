"""Labelled pairs and triplets: JSONL, Parquet or a data set of the Hugging Face Hub as one table of texts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from mecellem.files import disk_full_cause
from preprocessing.jsonl import SUFFIXES, json_type, read_line_blocks

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ANCHOR, POSITIVE, NEGATIVE = "anchor", "positive", "negative"
# What data sets call the three, in lower case. A name stands in one list only.
KNOWN = {
    ANCHOR: ("anchor", "query", "query_text", "question", "sentence1", "title"),
    POSITIVE: (
        "positive",
        "pos",
        "pos_text",
        "positive_text",
        "positive_passage",
        "answer",
        "passage",
        "document",
        "sentence2",
    ),
    NEGATIVE: ("negative", "neg", "neg_text", "negative_text", "negative_passage", "hard_negative"),
}
NUMBERED = re.compile(r"(negative|neg|hard_negative)_?\d+")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class PairSet:
    """Texts to train on. `table` [rows]: string columns anchor, positive and negative, or negative_1, negative_2, ...

    `origins`: what was read; `columns`: the names there; `dropped`: rows left out because a text was missing or empty.
    """

    table: pa.Table
    origins: tuple[str, ...]
    columns: tuple[str, ...]
    dropped: int = 0

    def __len__(self) -> int:
        """Rows."""
        return int(self.table.num_rows)

    @property
    def negatives(self) -> int:
        """Columns of hard negatives."""
        return int(self.table.num_columns) - 2

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(anchor, positive) of every row."""
        yield from zip(*(self.table.column(name).to_pylist() for name in (ANCHOR, POSITIVE)), strict=True)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over all texts in order: what the data is, wherever it came from."""
        digest = hashlib.sha256()
        for name in self.table.column_names:
            digest.update(f"{name}\n".encode())
            for text in self.table.column(name).to_pylist():
                data = text.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()

    def text_numbers(self) -> NDArray[np.int64]:
        """[rows, columns]: equal texts have equal numbers, across columns too."""
        import numpy as np
        import pyarrow as pa

        parts = [chunk for name in self.table.column_names for chunk in self.table.column(name).chunks]
        encoded = pa.chunked_array(parts, type=pa.large_string()).combine_chunks().dictionary_encode()
        numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return np.ascontiguousarray(numbers.reshape(self.table.num_columns, -1).T)

    def characters(self) -> NDArray[np.int64]:
        """[rows, columns]: characters of every text."""
        import numpy as np
        import pyarrow.compute as pc

        return np.stack([pc.utf8_length(column).to_numpy() for column in self.table.columns], axis=1).astype(np.int64)


def pair_set(pairs: Sequence[Sequence[str]], origin: str) -> PairSet:
    """Texts that are in memory, (anchor, positive, negatives...) each, as a `PairSet`."""
    names = our_names(len(pairs[0]))
    return PairSet(make_table(names, list(zip(*pairs, strict=True))), (origin,), names)


def our_names(count: int) -> tuple[str, ...]:
    """The columns of a table with `count` texts a row."""
    negatives = (NEGATIVE,) if count == 3 else tuple(f"{NEGATIVE}_{number}" for number in range(1, count - 1))
    return (ANCHOR, POSITIVE, *negatives)


def make_table(names: Sequence[str], columns: Sequence[Sequence[str | None]]) -> pa.Table:
    """Columns of texts as Arrow holds them (64-bit offsets: a column may have more than 2 GB)."""
    import pyarrow as pa

    return pa.table({name: pa.array(texts, pa.large_string()) for name, texts in zip(names, columns, strict=True)})


@dataclass(frozen=True, slots=True)
class Source:
    """One file or data set: the names of its columns, and how to read some of them as one table."""

    origin: str
    columns: tuple[str, ...]
    read: Callable[[tuple[str, ...]], pa.Table]


def read_pairs(sources: Sequence[str | Path], columns: Sequence[str] = (), split: str = "train") -> PairSet:
    """Pairs or triplets of all `sources`, one after another.

    A source is a .jsonl (.gz, .zst) or .parquet file, a folder of such files, or the id of a data set on the Hugging Face
    Hub, of which `split` is read. `columns` names anchor, positive and any hard negatives; without it they are guessed from
    names that data sets use. Rows with an empty text are left out and counted. Raises `UserError`.
    """
    import pyarrow as pa

    if not sources:
        raise UserError("--data names nothing: give .jsonl or .parquet files, or the id of a data set on the Hugging Face Hub")
    if len(columns) == 1:
        raise UserError("--columns needs at least two names: the anchor's and the positive's, then those of hard negatives")
    opened = [part for source in sources for part in open_source(str(source), split)]
    names = [check_columns(columns, part) if columns else guess_columns(part.columns, part.origin) for part in opened]
    for part, other in zip(opened, names, strict=True):
        if len(other) != len(names[0]):
            raise UserError(
                f"{part.origin} has {', '.join(other)} and {opened[0].origin} has {', '.join(names[0])}: name the columns "
                "to use of all files with --columns"
            )
    whole = pa.concat_tables(
        [as_texts(part.read(chosen), chosen, part.origin) for part, chosen in zip(opened, names, strict=True)]
    )
    kept = without_empty(whole)
    if not kept.num_rows:
        raise UserError(f"{opened[0].origin} has no pair whose texts are not empty: give others")
    return PairSet(kept, tuple(part.origin for part in opened), names[0], whole.num_rows - kept.num_rows)


def open_source(source: str, split: str) -> list[Source]:
    """The files that `source` names, or its one data set."""
    path = Path(source)
    if path.is_dir():
        files = sorted(file for suffix in (*SUFFIXES, ".parquet") for file in path.rglob(f"*{suffix}"))
        if not files:
            raise UserError(f"{path} holds no .jsonl, .jsonl.gz, .jsonl.zst or .parquet file: check the path (--data)")
        return [open_file(file) for file in files]
    if path.is_file():
        return [open_file(path)]
    if path.name.endswith((*SUFFIXES, ".parquet")) or HUB_ID.fullmatch(source) is None:
        raise UserError(f"{source} is no file or folder here, nor the id of a data set on the Hugging Face Hub: check --data")
    return [open_hub(source, split)]


def open_file(path: Path) -> Source:
    """A JSONL or Parquet file. Raises `UserError` for one that is damaged or of another kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.name.endswith(SUFFIXES):
        return Source(str(path), first_keys(path), partial(read_jsonl, path))
    if path.suffix != ".parquet":
        raise UserError(f"{path}: a name that ends in {', '.join(SUFFIXES)} or .parquet is needed (--data)")

    def read(columns: tuple[str, ...]) -> pa.Table:
        return pq.read_table(path, columns=list(columns))

    try:
        return Source(str(path), tuple(pq.read_schema(path).names), read)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file that can be read ({error}): copy or download it again") from None


def first_keys(path: Path) -> tuple[str, ...]:
    """The keys of a JSONL file's first object."""
    for _, fields in objects(path):
        return tuple(fields)
    raise UserError(f"{path} is empty: give JSON objects, one a line")


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSONL file. Raises `UserError` for a line that is none."""
    import orjson

    for block in read_line_blocks(path, BLOCK_BYTES):
        for number, line in enumerate(block.data.split(b"\n"), start=block.first_line):
            if not line.strip():
                continue
            try:
                fields = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}): repair or remove the line") from None
            if not isinstance(fields, dict):
                raise UserError(f"{path}, line {number}: a JSON object is needed, not {json_type(fields)}")
            yield number, fields


def read_jsonl(path: Path, columns: tuple[str, ...]) -> pa.Table:
    """The texts under `columns` of every line; null stays null. Raises `UserError` that names the line."""
    texts: list[list[str | None]] = [[] for _ in columns]
    for number, fields in objects(path):
        for name, values in zip(columns, texts, strict=True):
            if name not in fields:
                raise UserError(f'{path}, line {number}: "{name}" is missing, which the first line has: add it')
            value = fields[name]
            if not (value is None or isinstance(value, str)):
                raise UserError(
                    f'{path}, line {number}: "{name}" must be a string, not {json_type(value)}: write one text a row'
                )
            values.append(value)
    return make_table(columns, texts)


def open_hub(source: str, split: str) -> Source:
    """A data set of the Hugging Face Hub, or of its cache on a machine without internet. Raises `UserError`."""
    from datasets import load_dataset

    try:
        data = load_dataset(source, split=split)
    except Exception as error:  # those of the client that the library uses, too
        if disk_full_cause(error) is not None:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{source} is no file here and could not be read from the Hugging Face Hub ({reason}): check the id and "
            f"--split; on a machine without internet, download it elsewhere (`hf download {source} --repo-type dataset "
            "--local-dir FOLDER`) and give the folder"
        ) from None

    def read(columns: tuple[str, ...]) -> pa.Table:
        return data.select_columns(list(columns)).with_format("arrow")[:]

    return Source(f"{source} ({split})", tuple(data.column_names), read)


def guess_columns(found: Sequence[str], origin: str) -> tuple[str, ...]:
    """Which of the columns `found` are anchor, positive and hard negatives. Raises `UserError` where that is not clear."""
    lower = {name.lower(): name for name in found}
    by_role = {role: [lower[name] for name in names if name in lower] for role, names in KNOWN.items()}
    numbered = sorted((name for name in found if NUMBERED.fullmatch(name.lower())), key=number_of)
    listed = f"its columns are {', '.join(found)}; name anchor, positive and any hard negatives with --columns"
    for role in (ANCHOR, POSITIVE):
        if not by_role[role]:
            raise UserError(f"{origin}: no column of a known name holds the {role}: {listed}")
    negatives = by_role[NEGATIVE] + numbered
    for role, names in by_role.items():
        if len(names) > 1 or (role == NEGATIVE and names and numbered):
            raise UserError(f"{origin}: {' and '.join(names + numbered)} could each be the {role}: {listed}")
    return (by_role[ANCHOR][0], by_role[POSITIVE][0], *negatives)


def number_of(name: str) -> int:
    """The number at the end of a column's name."""
    match = re.search(r"\d+$", name)
    assert match, name
    return int(match[0])


def check_columns(columns: Sequence[str], source: Source) -> tuple[str, ...]:
    """The columns that a user named. Raises `UserError` for one that the source does not have."""
    for name in columns:
        if name not in source.columns:
            raise UserError(f"{source.origin}: no column {name} (--columns): its columns are {', '.join(source.columns)}")
        if columns.count(name) > 1:
            raise UserError(f"--columns names {name} twice: anchor, positive and hard negatives are different columns")
    return tuple(columns)


def as_texts(table: pa.Table, columns: Sequence[str], origin: str) -> pa.Table:
    """`columns` of a table, in this order, under our names. Raises `UserError` for one that holds no texts."""
    import pyarrow as pa

    for name in columns:
        kind = table.schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise UserError(f"{origin}: the column {name} must hold texts, and holds {kind}: write one text a row")
    chosen = table.select(list(columns)).rename_columns(list(our_names(len(columns))))
    return chosen.cast(pa.schema([(name, pa.large_string()) for name in chosen.column_names]))


def without_empty(table: pa.Table) -> pa.Table:
    """The rows whose texts all have something but white space."""
    import pyarrow.compute as pc

    mask = None
    for column in table.columns:
        full = pc.fill_null(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), False)
        mask = full if mask is None else pc.and_(mask, full)
    return table.filter(mask)
