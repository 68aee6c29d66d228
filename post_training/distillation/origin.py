"""Whose clone a student is, and whether the vectors are that teacher's."""

from __future__ import annotations

from typing import Any

from mecellem.errors import UserError
from mecellem.tokenizer_files import read_json
from post_training.distillation.record import RECORD
from post_training.distillation.store import VectorStore
from post_training.start import StartingPoint

CLONE = "clone.json"  # of `mecellem convert clone`


def refuse_another_teacher(start: StartingPoint, store: VectorStore) -> None:
    """Raise `UserError` where the student's record names other weights as its teacher's than those that made the vectors.

    A student without a record (no clone, never distilled) may learn from anyone.
    """
    record = next((read_json(path) for name in (CLONE, RECORD) if (path := start.folder / name).is_file()), {})
    teacher: dict[str, Any] = record.get("teacher") or {}
    own, theirs = ({*(part.get("weights_sha256") or {}).values()} for part in (teacher, store.manifest["teacher"]))
    if own and theirs and own != theirs:
        name = teacher.get("name", teacher.get("source"))
        raise UserError(
            f"the student {start.source} comes from the teacher {name}, and {store.folder} holds vectors of other weights "
            f"({store.manifest['teacher_name']}): make the vectors with its own teacher, or add --another-teacher"
        )
