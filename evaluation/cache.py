"""Finished parts of an evaluation, kept by the content they depend on: the second run of anything is a look-up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from evaluation.results import write_record

Model = TypeVar("Model", bound=BaseModel)
ROOT = Path(__file__).resolve().parents[1]


def content_key(parts: Any) -> str:
    """Twenty hexadecimal digits that change with anything in `parts` (JSON values)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:20]


@cache
def source_sha256(*rooms: str) -> str:
    """SHA-256 over the Python sources of these packages: what other code computed is not taken for this code's."""
    digest = hashlib.sha256()
    for path in sorted(path for room in rooms for path in (ROOT / room).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


class Cache:
    """JSON records and folders under one folder, named `<what>-<key>`."""

    def __init__(self, folder: Path) -> None:
        """`folder` appears with its first entry."""
        self.folder = folder

    def record(self, what: str, parts: Any, kind: type[Model], make: Callable[[], Model]) -> Model:
        """The record that `make` gives for `parts`, computed once. An unreadable entry counts as absent."""
        path = self.folder / f"{what}-{content_key(parts)}.json"
        if path.exists():
            try:
                return kind.model_validate_json(path.read_bytes())
            except ValidationError:
                path.unlink()
        value = make()
        write_record(path, value)
        return value

    def make_folder(self, what: str, parts: Any, make: Callable[[Path], None]) -> Path:
        """The folder that `make` writes (atomically, itself) for `parts`, made once."""
        path = self.folder / f"{what}-{content_key(parts)}"
        if not path.exists():
            make(path)
        return path
