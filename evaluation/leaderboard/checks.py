"""A task's data, loaded and looked at before anything is encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mecellem.errors import UserError

SHOWN = 3  # ids that a message names


def load(task: Any) -> None:
    """Load a task's data once for all systems. Raises `UserError` where it cannot be had."""
    if task.data_loaded:
        return
    name = task.metadata.name
    try:
        task.load_data()
    except UserError:
        raise
    except Exception as error:  # whatever the data library, the network or the task's own code raises
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"the data of task {name} cannot be loaded ({cause}): without internet, fetch it first where there is some with "
            f"`mecellem evaluate prefetch`"
        ) from error


def check(task: Any) -> None:
    """Load a task and refuse data that would give wrong scores: ids that are there twice, judgements of what is not there."""
    from mteb.abstasks import AbsTaskRetrieval

    load(task)
    if not isinstance(task, AbsTaskRetrieval):
        return
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    for subset, splits in task.dataset.items():
        for split in task.eval_splits:
            if split in splits:
                place = task.metadata.name if subset == "default" else f"{task.metadata.name} ({subset})"
                check_judgements(f"{place}, {split}", splits[split])


def check_judgements(place: str, data: Any) -> None:
    """`data`: `queries` and `corpus` with ids, `relevant_docs` as query -> document -> grade. Raises `UserError`."""
    queries, documents = list(data["queries"]["id"]), list(data["corpus"]["id"])
    for ids, what in ((queries, "queries"), (documents, "documents")):
        if not ids:
            raise UserError(f"{place}: there are no {what}: choose another task or write its data again")
        twice = [identity for identity, count in Counter(ids).items() if count > 1]
        if twice:
            raise UserError(f"{place}: {len(twice)} ids of {what} are there more than once ({some(twice)}): give each its own")
    judged = data["relevant_docs"]
    missing = sorted({document for found in judged.values() for document in found} - set(documents))
    if missing:
        raise UserError(
            f"{place}: judgements name {len(missing)} documents that the corpus lacks ({some(missing)}): nobody can find them, "
            "so scores would be too low; add the documents or drop the judgements"
        )
    unasked = sorted(set(judged) - set(queries))
    if unasked:
        raise UserError(
            f"{place}: judgements name {len(unasked)} queries that are not there ({some(unasked)}): add these or drop those"
        )
    if not any(grade > 0 for found in judged.values() for grade in found.values()):
        raise UserError(f"{place}: no query has a relevant document, so there is nothing to score: write its data again")


def some(ids: Sequence[str]) -> str:
    """The first few ids."""
    return ", ".join(map(repr, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
