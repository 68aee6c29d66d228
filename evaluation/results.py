"""What all records of figures have in common: frozen, strict, written whole, read with a sentence for what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mecellem.errors import UserError
from mecellem.files import atomic_write


class Record(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LeftOut(Record):
    """A task that could not be had, and why."""

    name: str
    reason: str


Model = TypeVar("Model", bound=BaseModel)


def read_record(path: Path, kind: type[Model], make: str) -> Model:
    """Read a JSON file as `kind`. Raises `UserError` (with `make` as advice) when it is missing or does not fit."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {make}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; remove it and {make}") from None


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record as indented JSON, whole or not at all."""
    with atomic_write(path) as handle:
        handle.write(record.model_dump_json(indent=1) + "\n")
