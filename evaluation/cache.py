"""Finished parts of an evaluation, kept by the content they depend on: the second run of anything is a look-up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from evaluation.results import write_record
from mecellem.content import content_key
from mecellem.files import locked

Model = TypeVar("Model", bound=BaseModel)


class Cache:
    """JSON records and folders under one folder, named `<what>-<key>`. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        """`folder` appears with its first entry."""
        self.folder = folder

    def find(self, what: str, parts: Any, kind: type[Model]) -> Model | None:
        """The record that is kept for `parts`; None where there is none, or one that cannot be read."""
        try:
            return kind.model_validate_json(self._path(what, parts).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep(self, what: str, parts: Any, value: BaseModel) -> None:
        """Keep a record for `parts`."""
        write_record(self._path(what, parts), value)

    def record(self, what: str, parts: Any, kind: type[Model], make: Callable[[], Model]) -> Model:
        """The record that `make` gives for `parts`, computed once. An unreadable entry counts as absent."""
        found = self.find(what, parts, kind)
        if found is None:
            found = make()
            self.keep(what, parts, found)
        return found

    def make_folder(self, what: str, parts: Any, make: Callable[[Path], None]) -> Path:
        """The folder that `make` writes (atomically, itself) for `parts`, made once; of several processes by one."""
        path = self.folder / f"{what}-{content_key(parts)}"
        if not path.exists():
            with locked(path):
                if not path.exists():
                    make(path)
        return path

    def _path(self, what: str, parts: Any) -> Path:
        return self.folder / f"{what}-{content_key(parts)}.json"
