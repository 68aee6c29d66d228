"""A YAML file that a person wrote, with the line of every key, so that an error can say where it is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from mecellem.errors import UserError

NEAR = 0.7  # likeness from which an unknown key may be a mistyped one: shards for shard_size, but not prtition for options
Place = tuple[str | int, ...]  # ("stages", 0, "sources", 1, "weight")
DIGITS = "[0-9]+(?:_[0-9]+)*"
INTEGER = re.compile("[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)$")
REAL = re.compile(
    rf"[-+]?(?:{DIGITS}[.](?:{DIGITS})?|[.]{DIGITS})(?:[eE][-+]?[0-9]+)?$"  # 0.8, 1.0e-4
    rf"|[-+]?{DIGITS}[eE][-+]?[0-9]+$"  # 1e-5
    r"|[-+]?[.](?:inf|Inf|INF|nan|NaN|NAN)$"
)

WANTED = {
    "list_type": "must be a list, one `- ` a line",
    "tuple_type": "must be a list, one `- ` a line",
    "dict_type": "must be a mapping of `key: value`",
    "model_type": "must be a mapping of `key: value`",
    "model_attributes_type": "must be a mapping of `key: value`",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be text: put it in quotes",
    "path_type": "must be a path",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's decimal numbers, with single underscores between digits: 4096, 3_700_000, 0.8, 1e-5.

    PyYAML's own are those of YAML 1.1, where 4_ is 4, 010 is 8, 1:30 is 90 and 1e-5 is text.
    """


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("int", "float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", REAL, list("-+.0123456789"))


def read_text(path: Path, of: str) -> str:
    """The text of a YAML file; `of` says whose it is ("a curriculum"). Raises `UserError` where it is missing or not text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give the YAML file of {of}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: give the YAML file of {of}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): give the YAML file of {of}") from None


def parse_yaml(text: str, path: Path, needs: str) -> tuple[Any, dict[Place, int]]:
    """The content of YAML, and the line (from 1) of every key and list item by its place; errors name `path`.

    `needs`: what it must at least hold, for the message. Raises `UserError` for a text that is empty, not YAML, or has a key
    twice in one mapping.
    """
    loader = _Loader(text)
    lines: dict[Place, int] = {}
    try:
        node = loader.get_single_node()
        if node is None:
            raise UserError(f"{path} is empty: it needs {needs}")
        _note_lines(path, node, (), lines)
        return loader.construct_document(node), lines
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{where}: not YAML ({problem}): check indentation, colons and quotes") from None
    finally:
        loader.dispose()


def _note_lines(path: Path, node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here, line = (*place, str(key.value)), key.start_mark.line + 1
            if here in lines:
                raise UserError(f"{path}, line {line}: the key `{key.value}` stands in line {lines[here]} already: remove one")
            lines[here] = line
            _note_lines(path, value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*place, index)] = value.start_mark.line + 1
            _note_lines(path, value, (*place, index), lines)


def line_of(place: Place, lines: Mapping[Place, int]) -> int:
    """The line of a place, or of the nearest place around it that the file has."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def named(place: Sequence[str | int], content: Any) -> str:
    """`stages[1] (terminology).sources[0] (laws).weight`: list items with the name that they have in the file."""
    words, item = "", content
    for part in place:
        words += f"[{part}]" if isinstance(part, int) else f".{part}"
        try:
            item = item[part]
        except (KeyError, IndexError, TypeError):
            item = None
        if isinstance(part, int) and isinstance(item, dict) and isinstance(item.get("name"), str):
            words += f" ({item['name']})"
    return words.removeprefix(".")


def finding_at(place: str | Place, message: str) -> PydanticCustomError:
    """For a validator of a whole mapping: what is wrong, at the line of `place`, a key in that mapping or the way to one."""
    place = (place,) if isinstance(place, str) else place
    return PydanticCustomError("said", "{message}", {"place": place, "message": message})


def refusal(
    path: Path, error: ValidationError, content: Any, lines: Mapping[Place, int], known: Mapping[str, list[str]]
) -> UserError:
    """The first finding of pydantic as one sentence with file, line, key and what to do.

    `known` maps the last name on the way to a mapping ("stages", "sources", "lr", "" for the file) to its keys.
    """
    # a mistyped key is also a missing one: tell of the mistyping
    first = min(error.errors(), key=lambda finding: finding["type"] != "extra_forbidden")
    place: Place = first["loc"]
    context = first.get("ctx") or {}
    place += tuple(context.get("place", ()))
    where, what = f"{path}, line {line_of(place, lines)}", named(place, content) or "the file"
    kind, given = first["type"], first["input"]
    if kind == "extra_forbidden":
        key, parent = str(place[-1]), next((part for part in reversed(place[:-1]) if isinstance(part, str)), "")
        names = known.get(parent, [])
        close = difflib.get_close_matches(key, names, 1, NEAR)
        advice = f"did you mean `{close[0]}`?" if close else f"the keys are {', '.join(names)}"
        return UserError(f"{where}: unknown key `{what}`: {advice}")
    if kind == "missing":
        return UserError(f"{where}: `{what}` is missing: add it")
    if kind in ("value_error", "said"):
        return UserError(f"{where}: `{what}`: {first['msg'].removeprefix('Value error, ')}")
    if kind == "literal_error":
        return UserError(f"{where}: `{what}` is {given!r}: it must be {context['expected']}")
    if kind == "string_pattern_mismatch":
        return UserError(f"{where}: `{what}` is {given!r}: it must match {context['pattern']}")
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"):
        limit = first["msg"].removeprefix("Input should be ")
        return UserError(f"{where}: `{what}` is {given}: it must be {limit}")
    wanted = WANTED.get(kind) or first["msg"].replace("Input should", "should", 1).replace("should", "must", 1)
    return UserError(f"{where}: `{what}` is {given!r}: it {wanted}")
