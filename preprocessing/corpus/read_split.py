"""Read a corpus folder back: train, validation and test as .jsonl.zst, .jsonl.gz or .jsonl, one document a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mecellem.errors import UserError
from mecellem.files import sha256_of
from preprocessing.corpus.document import Document
from preprocessing.corpus.split import SPLITS
from preprocessing.jsonl import SUFFIXES, UNKNOWN_LICENCE, json_type, optional_string, read_fields

MAKE_IT = "make the corpus with `mecellem corpus fetch`, or put your own texts there"
SOURCE = "corpus"  # of a document that names none


def split_path(corpus: Path, split: str) -> Path:
    """The file of one split (`train`, `validation`, `test`). Raises `UserError` when it, or the folder, is missing."""
    assert split in SPLITS, split
    if not corpus.is_dir():
        raise UserError(f"{corpus} is not a corpus folder (--corpus): {MAKE_IT}")
    found = [path for suffix in SUFFIXES if (path := corpus / f"{split}{suffix}").is_file()]
    if not found:
        raise UserError(f"{corpus / split}.jsonl.zst (or .jsonl, .jsonl.gz) is missing: {MAKE_IT}")
    if len(found) > 1:
        raise UserError(f"{corpus} has {' and '.join(path.name for path in found)}: leave one of them there")
    return found[0]


def split_sha256(corpus: Path, split: str) -> str:
    """SHA-256 of a split's file: what cached results are keyed by."""
    return sha256_of(split_path(corpus, split))


def read_split(corpus: Path, split: str) -> list[Document]:
    """All documents of a split, in file order. Of a line only `text` is required; its number is the `id` it lacks.

    Raises `UserError` for a split that is missing, damaged or empty, for a value of a wrong type and for an `id` that
    an earlier line has.
    """
    path = split_path(corpus, split)
    documents = list(_documents(path))
    if not documents:
        raise UserError(f"{path} has no documents: a {split} split is needed here; {MAKE_IT}")
    return documents


def _documents(path: Path) -> Iterator[Document]:
    seen: dict[str, int] = {}
    for number, fields in read_fields(path):
        if isinstance(fields.get("id"), int):
            fields["id"] = str(fields["id"])
        identity = optional_string(path, number, fields, "id", str(number))
        if identity in seen:
            raise UserError(f"{path}, line {number}: line {seen[identity]} has the same id {identity!r}: give each its own")
        seen[identity] = number
        yield Document(
            id=identity,
            source=optional_string(path, number, fields, "source", SOURCE),
            licence=optional_string(path, number, fields, "licence", UNKNOWN_LICENCE),
            title=optional_string(path, number, fields, "title", ""),
            text=fields["text"],
            definitions=_strings(path, number, fields, "definitions"),
            examples=_strings(path, number, fields, "examples"),
        )


def _strings(path: Path, number: int, fields: dict[str, Any], key: str) -> tuple[str, ...]:
    """A record's list of strings, empty where it is missing or null."""
    values = fields.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(f'{path}, line {number}: "{key}" must be an array of strings, not {json_type(values)}')
    return tuple(values)
