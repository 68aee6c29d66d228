"""Where two curricula differ, by stage, source and field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mecellem.errors import UserError
from mecellem.yaml_file import parse_yaml

Named = dict[str, dict[str, Any]]


def curriculum_changes(a: Any, b: Any) -> list[str] | None:
    """Every difference of two curricula's texts: `stage 'x', source 'y', weight: 0.8 and 0.7`.

    Empty where they differ in comments and layout only, None where one is missing or is no curriculum. Values are compared
    as they are written: `3.7B` differs from `3_700M`.
    """
    stages = [_stages(text) for text in (a, b)]
    if stages[0] is None or stages[1] is None:
        return None
    return list(_changes(stages[0], stages[1]))


def _stages(text: Any) -> Named | None:
    if not isinstance(text, str):
        return None
    try:
        content, _ = parse_yaml(text, Path("curriculum"), needs="stages")
    except UserError:
        return None
    return _named(content.get("stages")) if isinstance(content, dict) else None


def _named(items: Any) -> Named | None:
    """A list of mappings by their names: a source without one has the last part of its path."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    return {str(item.get("name", Path(str(item.get("path", ""))).name)): item for item in items}


def _changes(a: Named, b: Named) -> Iterator[str]:
    yield from _only_in_one("stage", a, b)
    common = [name for name in a if name in b]
    if common != [name for name in b if name in a]:
        yield "the order of the stages"
    for name in common:
        where = f"stage {name!r}"
        sources = [_named(stages[name].get("sources")) or {} for stages in (a, b)]
        for source in sources[0]:
            if source in sources[1]:
                yield from _fields(f"{where}, source {source!r}", sources[0][source], sources[1][source])
        yield from _only_in_one(f"{where}, source", *sources)
        yield from _fields(where, *({**stages[name], "sources": None} for stages in (a, b)))


def _only_in_one(kind: str, a: Named, b: Named) -> Iterator[str]:
    for letter, one, other in (("A", a, b), ("B", b, a)):
        yield from (f"{kind} {name!r} only in {letter}" for name in one if name not in other)


def _fields(where: str, a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys((*a, *b)):
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _fields(f"{where}, {key}", one, other)
        elif one != other:
            yield f"{where}, {key}: {_written(one)} and {_written(other)}"


def _written(value: Any) -> str:
    return "nothing" if value is None else str(value)
