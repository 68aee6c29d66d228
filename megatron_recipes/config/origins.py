"""Where each value of a run came from: its dataclass, its recipe or the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """`{"optimizer.lr": 0.0008, ...}`: every leaf of nested dataclasses under its dotted name."""
    leaves: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            leaves.update(flatten(value, f"{prefix}{field.name}."))
        else:
            leaves[prefix + field.name] = value
    return leaves


def field_defaults(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names of the leaves of `config` that have a default in their dataclass, with that default."""
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            defaults.update(field_defaults(value, f"{prefix}{field.name}."))
        elif field.default is not dataclasses.MISSING:
            defaults[prefix + field.name] = field.default
    return defaults


def named_in(argv: Sequence[str], config: Any) -> set[str]:
    """Dotted names of the values that a command line sets: `--a.b-c 1`, `--a.b-c=1`, `--a.flag` and `--a.no-flag`."""
    known, found = flatten(config), set[str]()
    for word in argv:
        if word.startswith("--"):
            *parents, leaf = word.removeprefix("--").partition("=")[0].replace("-", "_").split(".")
            names = (".".join([*parents, name]) for name in (leaf, leaf.removeprefix("no_")))
            found.update(name for name in names if name in known)
    return found


def as_flags(values: Mapping[str, Any]) -> str:
    """Words of a command line that set these values, by dotted name; the other way round than `named_in`."""
    words = []
    for name, value in values.items():
        *parents, leaf = name.replace("_", "-").split(".")
        words.append(f"--{'.'.join([*parents, f'no-{leaf}' if value is False else leaf])}")
        words += [] if isinstance(value, bool) else [str(value)]
    return " ".join(words)


def origins(config: Any, recipe_name: str, command_line: Collection[str]) -> dict[str, str]:
    """Where each value came from: `command line`, `recipe NAME` or `default`.

    `command_line`: the dotted names that were given there (`named_in`), also with the value they have anyway. "default"
    means equal to the dataclass's default: a recipe that spells such a value out is not told apart.
    """
    given, defaults = flatten(config), field_defaults(config)
    result = {}
    for name, value in given.items():
        if name in command_line:
            result[name] = "command line"
        elif name in defaults and defaults[name] == value:
            result[name] = "default"
        else:
            result[name] = f"recipe {recipe_name}"
    return result
