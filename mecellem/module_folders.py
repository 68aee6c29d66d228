"""The modules of a sentence-transformers folder, as its `modules.json` lists them; the first one is mostly a transformer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mecellem.errors import UserError

MODULES = "modules.json"


@dataclass(frozen=True, slots=True)
class Module:
    """One module. `kind`: its class without the package (`Pooling`); `path`: below the model's folder, "" for that itself."""

    kind: str
    path: str


def read_modules(folder: Path) -> list[Module]:
    """The modules of a model in order. Raises `UserError` for a list that is damaged, and for a module that is missing."""
    found = _listed(folder)
    for module in found:
        if not (folder / module.path).is_dir() and module.kind != "Normalize":  # that one may have no files
            raise UserError(f"{folder / module.path} is missing though {folder / MODULES} names it: get the folder again")
    return found


def transformer_folder(folder: Path) -> Path:
    """Where config, weights and tokenizer of a model lie: its first module's folder, or `folder` where it lists none.

    Raises `UserError` for a list that is damaged. The folder may be absent where only some files were copied.
    """
    return folder / _listed(folder)[0].path if (folder / MODULES).is_file() else folder


def _listed(folder: Path) -> list[Module]:
    path = folder / MODULES
    try:
        listed = json.loads(path.read_bytes())
        found = [Module(str(item["type"]).rpartition(".")[2], str(item["path"])) for item in listed]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is no list of modules with path and type ({error!r}): get the folder again") from None
    if not found:
        raise UserError(f"{path} names no module: get the folder again")
    for module in found:
        if Path(module.path).is_absolute() or ".." in Path(module.path).parts:
            raise UserError(f"{path} has a module in {module.path}, outside of the folder: get the folder again")
    return found
