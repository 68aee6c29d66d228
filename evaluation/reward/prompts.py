"""Prompts, and continuations that were made elsewhere: JSONL, matched by `id` or, without one, by the prompt itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evaluation.results import Record
from mecellem.errors import UserError
from preprocessing.jsonl import check_inputs, json_type, read_line_blocks

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and what it is known by: its `id`, else its text."""

    key: str
    text: str


class Continuation(Record):
    """What a model wrote after a prompt. `tokens` are the model's own, None for texts made elsewhere; `finished`: by EOS."""

    text: str
    tokens: int | None
    finished: bool | None


def records(path: Path, flag: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of a .jsonl file (also .gz, .zst); blank lines are skipped. Raises `UserError` for other content."""
    check_inputs([path], flag)
    for block in read_line_blocks(path, BLOCK):
        for number, line in enumerate(block.data.split(b"\n"), start=block.first_line):
            if not line.strip():
                continue
            try:
                found = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}): repair or remove the line") from None
            if not isinstance(found, dict):
                raise UserError(f"{path}, line {number}: a JSON object is needed, not {json_type(found)}")
            yield number, found


def string(path: Path, line: int, found: dict[str, Any], name: str) -> str:
    """A field that has to be there and to be text."""
    if name not in found:
        raise UserError(f'{path}, line {line}: the record has no "{name}", it has {", ".join(found) or "nothing"}: add it')
    if not isinstance(found[name], str):
        raise UserError(f'{path}, line {line}: "{name}" must be a string, not {json_type(found[name])}')
    return str(found[name])


def key_of(path: Path, line: int, found: dict[str, Any], field: str) -> str:
    """What a record is known by: its `id` (a string or a whole number), else its prompt."""
    identity = found.get("id")
    if identity is None:
        return string(path, line, found, field)
    if isinstance(identity, bool) or not isinstance(identity, (str, int)):
        raise UserError(f'{path}, line {line}: "id" must be a string or a whole number, not {json_type(identity)}')
    return str(identity)


def read_prompts(path: Path, field: str = "prompt") -> list[Prompt]:
    """All prompts, in order. Raises `UserError` for a file without any, an empty prompt and one that stands twice."""
    prompts: list[Prompt] = []
    lines: dict[str, int] = {}
    for line, found in records(path, "--prompts"):
        text = string(path, line, found, field)
        if not text.strip():
            raise UserError(f"{path}, line {line}: the prompt is empty: write one, or remove the line")
        key = key_of(path, line, found, field)
        if key in lines:
            what = "id" if found.get("id") is not None else "prompt"
            raise UserError(f"{path}, line {line}: line {lines[key]} has the same {what}: remove one, or give both an id")
        lines[key] = line
        prompts.append(Prompt(key, text))
    if not prompts:
        raise UserError(f'{path} (--prompts) has no prompt: write one {{"{field}": "..."}} a line')
    return prompts


def read_continuations(path: Path, prompts: Sequence[Prompt], field: str, flag: str) -> list[Continuation]:
    """The continuations of `prompts`, in their order; others in the file are left alone.

    Raises `UserError` for a prompt without a continuation, one with two, and a record whose prompt is not the one of its id.
    """
    wanted = {prompt.key: prompt.text for prompt in prompts}
    found: dict[str, tuple[int, str]] = {}
    for line, record in records(path, flag):
        key = key_of(path, line, record, field)
        if key not in wanted:
            continue
        if key in found:
            raise UserError(f"{path}, line {line}: line {found[key][0]} continues the same prompt: remove one")
        if field in record and string(path, line, record, field) != wanted[key]:
            raise UserError(
                f"{path}, line {line}: this is not the prompt that --prompts has under id {key}: use one set of ids"
            )
        found[key] = (line, string(path, line, record, "continuation"))
    for prompt in prompts:
        if prompt.key not in found:
            raise UserError(f"{path} ({flag}) has no continuation of {shown(prompt.key)}: add it, or remove the prompt")
    return [Continuation(text=found[prompt.key][1], tokens=None, finished=None) for prompt in prompts]


def shown(text: str) -> str:
    """A text short enough for a message."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
