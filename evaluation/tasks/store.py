"""Built tasks in the cache folder: rows as JSONL, and `task.json` with the facts and the SHA-256 of every file.

The manifest is all that a look-up needs; the files are hashed again before it is believed (milliseconds a megabyte).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from evaluation.results import Record
from evaluation.tasks.content import Content, Row
from evaluation.tasks.facts import MAIN_METRICS, TaskFacts
from mecellem.errors import UserError
from mecellem.files import atomic_folder, locked, sha256_of

FORMAT = "mecellem.task/1"
MANIFEST = "task.json"
QUOTED = 3  # ids that a message shows


class StoredTask(Record):
    """`task.json`."""

    format: str
    facts: TaskFacts
    files: dict[str, str]


def write_task(folder: Path, content: Content) -> None:
    """The files of a task into an existing folder. Raises `UserError` for ids or judgements that contradict each other."""
    if content.category == "retrieval":
        _check_retrieval(content)
    files = {}
    for name, rows in content.tables.items():
        path = folder / f"{name}.jsonl"
        path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
        files[path.name] = sha256_of(path)
    main_metric = MAIN_METRICS[content.category]
    meaning = [FORMAT, content.category, main_metric, content.languages, files]
    facts = TaskFacts(
        name=content.name,
        description=content.description,
        category=content.category,
        main_metric=main_metric,
        revision=hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest(),
        splits=("test",),
        subset="default",
        languages=content.languages,
        items=content.items,
        documents=content.documents,
        source=content.source,
        licence=content.licence,
    )
    stored = StoredTask(format=FORMAT, facts=facts, files=files)
    (folder / MANIFEST).write_text(stored.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _check_retrieval(content: Content) -> None:
    """Every judgement names a document, every query has an answer, every id is there once; a text may be empty."""
    corpus, queries = ([row["id"] for row in content.tables[name]] for name in ("corpus", "queries"))
    qrels = judgements(content.tables["qrels"])
    there = set(corpus)
    missing = sorted({document for judged in qrels.values() for document in judged} - there)
    unjudged = [query for query in queries if not any(score > 0 for score in qrels.get(query, {}).values())]
    for ids, wrong in (
        (_twice(corpus), "ids of documents are there more than once"),
        (_twice(queries), "ids of queries are there more than once"),
        (missing, "judged documents are not in the corpus"),
        (unjudged, "queries have no relevant document"),
    ):
        if ids:
            some = ", ".join(map(repr, ids[:QUOTED])) + (", ..." if len(ids) > QUOTED else "")
            raise UserError(f"{content.name}: {len(ids)} {wrong} ({some}): correct what the task is made of")


def _twice(ids: list[str]) -> list[str]:
    return [key for key, count in Counter(ids).items() if count > 1]


def read_manifest(folder: Path) -> StoredTask | None:
    """The manifest of a stored task, or None where there is none or a file is not the one that it names."""
    try:
        stored = StoredTask.model_validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    whole = all((folder / name).is_file() and sha256_of(folder / name) == digest for name, digest in stored.files.items())
    return stored if whole and stored.format == FORMAT else None


def read_table(folder: Path, name: str) -> list[Row]:
    """The rows of one of a stored task's tables."""
    return [orjson.loads(line) for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]


def judgements(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Query id -> document id -> relevance."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
    return found


def made_once(folder: Path, whole: Callable[[Path], Any], make: Callable[[Path], None]) -> None:
    """Make `folder` unless `whole` finds it so; of processes that ask for it at once, one makes it."""
    if whole(folder):
        return
    with locked(folder):
        if not whole(folder):
            with atomic_folder(folder, replace=True) as temporary:
                make(temporary)
