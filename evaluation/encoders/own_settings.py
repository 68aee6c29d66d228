"""`--encoders FILE.yaml`: settings of single models, each under its name, where one flag for all would not do.

A line a model: `e5: {query_prompt: "query: ", document_prompt: "passage: "}`, `gte: {pooling: cls}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from evaluation.encoders.settings import EncoderSettings
from evaluation.encoders.source import Kind, SystemSource
from mecellem.errors import UserError
from mecellem.yaml_file import line_of, parse_yaml, read_text, refusal

_TYPES = get_type_hints(EncoderSettings)
KEYS = [field.name for field in fields(EncoderSettings) if field.name != "batch_tokens"]  # that one changes no vector
OF_STATIC: dict[Kind, list[str]] = {"bm25": [], "use": [], "akana": [], "model2vec": ["max_seq_length"]}
_FIELDS: dict[str, Any] = {
    field.name: (_TYPES[field.name], field.default) for field in fields(EncoderSettings) if field.name in KEYS
}
_Own: type[BaseModel] = create_model("_Own", __config__=ConfigDict(extra="forbid", frozen=True), **_FIELDS)
_FILE = TypeAdapter(dict[str, _Own])  # type: ignore[valid-type]


def read_own_settings(
    path: Path | None, settings: EncoderSettings, sources: Sequence[SystemSource]
) -> dict[str, EncoderSettings]:
    """The settings of every model that the file names: `settings`, with what stands there in their place. No file: none.

    Raises `UserError` with file and line for a name that none of `sources` has, an unknown key, a value that cannot be, and
    a setting that a model of this kind would not use.
    """
    if path is None:
        return {}
    text = read_text(path, "the models' settings (--encoders)")
    content, lines = parse_yaml(text, path, "`NAME: {query_prompt: ...}` of a model")
    try:
        given: dict[str, BaseModel] = _FILE.validate_python(content)
    except ValidationError as error:
        names = [str(name) for name in content] if isinstance(content, dict) else []
        raise refusal(path, error, content, lines, dict.fromkeys(names, KEYS)) from None
    kinds = {source.name: source.kind for source in sources}
    found = {}
    for name, own in given.items():
        where = f"{path}, line {line_of((name,), lines)}"
        if name not in kinds:
            raise UserError(f"{where}: no model is called {name!r}, but {', '.join(kinds)}: correct it, or give NAME=MODEL")
        used = OF_STATIC.get(kinds[name], KEYS)
        for key in own.model_fields_set:
            if key not in used:
                raise UserError(f"{where}: {name} is {kinds[name]}, which has no use for `{key}`: remove it")
        try:
            found[name] = replace(settings, **own.model_dump(exclude_unset=True))
        except UserError as error:
            raise UserError(f"{where}: {name}: {error}") from None
    return found
