"""Tables of published figures: YAML with an origin for every number, or CSV with one for every row."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluation.efficiency.figures import Cost, Figure, Quality, Row
from mecellem.errors import UserError
from mecellem.yaml_file import line_of, parse_yaml, read_text, refusal

DEFAULT = Path(__file__).with_name("published.yaml")
DERIVED = "index_bytes"  # from the vector width
NAMES = tuple(name for name in (*get_args(Quality), *get_args(Cost)) if name != DERIVED)
PERCENT = (*get_args(Quality), "reported")


class Table(BaseModel):
    """Rows of one benchmark: figures of different benchmarks are never set against each other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    origin: str
    notes: list[str]
    rows: list[Row]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Number(_Strict):
    value: float = Field(allow_inf_nan=False)
    origin: str = Field(min_length=1)


class _YamlRow(_Strict):
    name: str = Field(min_length=1)
    mean: _Number | None = None
    retrieval: _Number | None = None
    legal: _Number | None = None
    parameters: _Number | None = None
    backbone_parameters: _Number | None = None
    dimensions: _Number | None = None
    query_p50: _Number | None = None
    query_p95: _Number | None = None
    documents_per_second: _Number | None = None
    memory: _Number | None = None
    load: _Number | None = None
    reported: _Number | None = None

    @model_validator(mode="after")
    def _in_range(self) -> _YamlRow:
        for name in (*NAMES, "reported"):
            number: _Number | None = getattr(self, name)
            fault = None if number is None else out_of_range(name, number.value)
            if fault:
                raise ValueError(fault)
        return self


class _YamlTable(_Strict):
    benchmark: str = Field(min_length=1)
    origin: str = Field(min_length=1)
    notes: list[str] = Field(default_factory=list)
    rows: list[_YamlRow] = Field(min_length=1)


NUMBER_KEYS = list(_Number.model_fields)
KEYS = {
    "": list(_YamlTable.model_fields),
    "rows": list(_YamlRow.model_fields),
    **dict.fromkeys((*NAMES, "reported"), NUMBER_KEYS),
}


def out_of_range(name: str, value: float) -> str | None:
    """What is wrong with a figure, in words."""
    if name in PERCENT:
        most = 100
        return None if 0 <= value <= most else f"{name} is {value:g}: it must be a percentage from 0 to {most}"
    if name == "backbone_parameters":  # a table of static vectors has none
        return None if value >= 0 else f"{name} is {value:g}: it must not be negative"
    return None if value > 0 else f"{name} is {value:g}: it must be above 0; leave it out where it is not known"


def read_table(path: Path) -> Table:
    """A .yaml or .csv table. Raises `UserError` with file and line: unknown keys, wrong numbers, a system that stands twice."""
    readers = {".yaml": _read_yaml, ".yml": _read_yaml, ".csv": _read_csv}
    if path.suffix not in readers:
        raise UserError(f"{path}, given by --table: a name that ends in .yaml or .csv is needed")
    if not path.is_file():
        raise UserError(f"{path}, given by --table, is not a file: check the path")
    table, lines = readers[path.suffix](path)
    seen: dict[str, int] = {}
    for row, line in zip(table.rows, lines, strict=True):
        if row.name in seen:
            raise UserError(f"{path}, line {line}: {row.name} stands in line {seen[row.name]} already: remove one")
        seen[row.name] = line
    return table


def _read_yaml(path: Path) -> tuple[Table, list[int]]:
    content, lines = parse_yaml(read_text(path, "published figures"), path, needs="`benchmark:`, `origin:` and `rows:`")
    try:
        file = _YamlTable.model_validate(content)
    except ValidationError as error:
        raise refusal(path, error, content, lines, KEYS) from None
    rows = []
    for row in file.rows:
        numbers = {name: getattr(row, name) for name in NAMES}
        figures = {name: Figure(value=found.value, origin=found.origin) for name, found in numbers.items() if found is not None}
        reported = None if row.reported is None else Figure(value=row.reported.value, origin=row.reported.origin)
        rows.append(Row(name=row.name, figures=figures, reported=reported))
    table = Table(benchmark=file.benchmark, origin=file.origin, notes=file.notes, rows=rows)
    return table, [line_of(("rows", number), lines) for number in range(len(rows))]


def _read_csv(path: Path) -> tuple[Table, list[int]]:
    """Columns `name`, `origin`, and any of the figures; an empty cell is a missing figure. The benchmark is the file's name."""
    columns = ("name", "origin", *NAMES, "reported")
    rows, lines = [], []
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            header = reader.fieldnames or []
            for column in header:
                if column not in columns:
                    raise UserError(f"{path}, line 1: unknown column {column!r}: the columns are {', '.join(columns)}")
            missing = [column for column in ("name", "origin") if column not in header]
            if missing:
                raise UserError(f"{path}, line 1: the column {missing[0]!r} is missing: add it")
            for cells in reader:
                rows.append(_csv_row(path, reader.line_num, cells))
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): convert it to UTF-8") from None
    if not rows:
        raise UserError(f"{path} has no row: add one line a system")
    return Table(benchmark=path.stem, origin=str(path), notes=[], rows=rows), lines


def _csv_row(path: Path, line: int, cells: dict[Any, Any]) -> Row:
    where = f"{path}, line {line}"
    if None in cells or None in cells.values():
        raise UserError(f"{where}: the line has not as many cells as the first one has columns: check commas and quotes")
    texts = {name: cell.strip() for name, cell in cells.items()}
    for name in ("name", "origin"):
        if not texts[name]:
            raise UserError(f"{where}: the cell {name!r} is empty: every row needs a name and the origin of its figures")
    figures = {}
    for name in (*NAMES, "reported"):
        if not texts.get(name):
            continue
        try:
            value = float(texts[name])
        except ValueError:
            raise UserError(
                f"{where}: {name} is {texts[name]!r}: it must be a number, or empty where it is not known"
            ) from None
        fault = (
            out_of_range(name, value) if math.isfinite(value) else f"{name} is {value}: leave it empty where it is not known"
        )
        if fault:
            raise UserError(f"{where}: {fault}")
        figures[name] = Figure(value=value, origin=texts["origin"])
    return Row(name=texts["name"], figures=figures, reported=figures.pop("reported", None))
