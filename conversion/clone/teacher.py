"""The teacher as a folder: a Hugging Face model, alone or as the first module of a sentence-transformers one."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion.clone.vocabulary import ROLES, TokenizerFolder
from conversion.source import HUB_ID, model_from_hub
from mecellem.errors import UserError
from mecellem.module_folders import MODULES, read_modules
from mecellem.tokenizer_files import TOKENIZER_FILES, read_json

OF_THE_MODEL = ("model_max_length", "model_input_names", "padding_side", "truncation_side")  # not of the vocabulary


@dataclass(frozen=True, slots=True)
class TeacherFolder:
    """`folder`: what was named. `transformer`: where config, weights and tokenizer are. `modules`: folders of the others."""

    folder: Path
    transformer: Path
    modules: tuple[str, ...]

    @property
    def is_sentence_transformers(self) -> bool:
        """Whether it is one with modules."""
        return (self.folder / MODULES).is_file()


def find_teacher(source: str | Path) -> TeacherFolder:
    """A local folder, or a model of the Hugging Face Hub by its id. Raises `UserError` for what is neither or not whole."""
    folder = Path(source)
    if not folder.exists() and HUB_ID.fullmatch(str(source)) and not folder.parent.is_dir():
        folder = model_from_hub(str(source))
    if not folder.is_dir():
        raise UserError(f"--teacher {source} is neither a folder nor the id of a model on the Hugging Face Hub")
    if not (folder / MODULES).is_file():
        return TeacherFolder(folder, folder, ())
    modules = read_modules(folder)
    if modules[0].kind != "Transformer":
        raise UserError(
            f"{folder / MODULES} begins with {modules[0].kind}: cloning needs a transformer; give such a model's folder"
        )
    # a Normalize has no settings, and folders without their empty folders are common
    others = tuple(module.path for module in modules[1:] if module.path and (folder / module.path).is_dir())
    return TeacherFolder(folder, folder / modules[0].path, others)


def copy_modules(teacher: TeacherFolder, out: Path) -> None:
    """Copy a teacher's sentence-transformers modules and settings, byte for byte; not its model card, nor its tokenizer."""
    for module in teacher.modules:
        shutil.copytree(teacher.folder / module, out / module)
    if teacher.is_sentence_transformers:
        for path in teacher.folder.glob("*.json"):
            if path.name == MODULES or path.name.startswith(("config_sentence", "sentence_")):
                shutil.copyfile(path, out / path.name)
    place = out / teacher.transformer.relative_to(teacher.folder)
    place.mkdir(parents=True, exist_ok=True)
    for path in teacher.transformer.glob("sentence_*_config.json"):
        shutil.copyfile(path, place / path.name)


def write_tokenizer(target: TokenizerFolder, teacher: TeacherFolder, folder: Path) -> None:
    """Copy the files of a tokenizer; how long texts may be, the padded side and the names of inputs stay those of the model."""
    for name in TOKENIZER_FILES:
        if name != "generation_config.json" and (target.folder / name).is_file():
            shutil.copyfile(target.folder / name, folder / name)
    settings = folder / "tokenizer_config.json"
    if not settings.exists():
        names = {number: piece for piece, number in target.ids.items()}
        values = {"tokenizer_class": "PreTrainedTokenizerFast"}
        values |= {f"{role}_token": names[number] for role, number in target.roles.items()}
    else:
        values = read_json(settings, "tokenizer")
    own = teacher.transformer / "tokenizer_config.json"
    of_teacher = read_json(own, "tokenizer") if own.exists() else {}
    for name in OF_THE_MODEL:
        if name in of_teacher:
            values[name] = of_teacher[name]
        else:
            values.pop(name, None)
    settings.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_configs(teacher: TeacherFolder, folder: Path, nested: str | None, ids: NewIds, dtype: str | None) -> list[str]:
    """Write config.json, and generation_config.json if there is one, for the new vocabulary; only sizes, ids and type change.

    Returns what they named that the new vocabulary has not (`pad_token_id 1`), which is null now.
    """
    values = read_json(teacher.transformer / "config.json")
    (values[nested] if nested is not None else values)["vocab_size"] = ids.size
    if dtype is not None:
        for place in [values, values.get(nested or "")]:
            if isinstance(place, dict):
                place.pop("torch_dtype", None)
                place["dtype"] = dtype
    lost: list[str] = []
    _write(folder / "config.json", ids.translate(values, lost))
    if (teacher.transformer / "generation_config.json").is_file():
        values = read_json(teacher.transformer / "generation_config.json")
        _write(folder / "generation_config.json", ids.translate(values, lost))
    return list(dict.fromkeys(lost))


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class NewIds:
    """The teacher's ids in its configs -> ids of the new vocabulary: by role, else by the entry that was copied from it."""

    def __init__(self, teacher: TokenizerFolder, target: TokenizerFolder, copied: dict[int, int]) -> None:
        """`copied`: the new id of every entry of the teacher that the new vocabulary has as it is."""
        self.teacher, self.target, self.copied = teacher, target, copied
        self.size = target.size

    def new_id(self, old: int, role: str | None = None) -> int | None:
        """The id for the teacher's `old`, which a config names in `role`; None where nothing has its place."""
        roles = [name for name in ROLES if self.teacher.roles.get(name) == old]
        for name in [role, *roles] if role in ROLES else roles:
            if name is not None and (found := self.target.role(name)) is not None:
                return found
        return self.copied.get(old)

    def translate(self, values: Any, lost: list[str], key: str = "") -> Any:
        """A config with every `..._token_id` translated; names of those that nothing has the place of are added to `lost`."""
        if isinstance(values, dict):
            return {name: self.translate(value, lost, name) for name, value in values.items()}
        if not key.endswith(("_token_id", "_token_ids")):
            return values
        role = key.removesuffix("s").removesuffix("_token_id")
        if isinstance(values, list):
            found = [self.new_id(old, None) for old in values if isinstance(old, int)]
            lost += [f"{key} {old}" for old, new in zip(values, found, strict=False) if new is None]
            return list(dict.fromkeys(number for number in found if number is not None)) or None
        if isinstance(values, int) and not isinstance(values, bool):
            new = self.new_id(values, role)
            lost += [f"{key} {values}"] if new is None else []
            return new
        return values
