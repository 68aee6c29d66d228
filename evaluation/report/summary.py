"""`summary.json`: every figure that the report's tables show, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.report.decoder import curriculum_summary
from evaluation.report.gather import ReportData
from evaluation.selection.results import SYSTEMS, Selection, SystemScores
from evaluation.selection.tables import shared_mean, splits
from mecellem.files import atomic_write

DETAILS = {"per_item"}  # of a task's result: a figure a query
DETAILED = {"tasks": {"__all__": DETAILS}}  # the same of a system's scores


def training_summary(data: ReportData) -> dict[str, Any]:
    """How far the training went and where its losses ended. Emulated FP8 is not timed: an emulation has no speed to report."""
    last, lowest = data.training[-1], data.lowest_validation()
    timed = data.emulated_fp8 is None
    return {
        "steps": last["step"],
        "planned_steps": data.settings.get("steps"),
        "tokens": last["tokens"],
        "emulated_fp8": data.emulated_fp8,
        "seconds": sum(float(row.get("seconds") or 0.0) for row in data.training) if timed else None,
        "tokens_per_second_median": median([float(row["tokens_per_second"]) for row in data.training]) if timed else None,
        "loss_first": data.training[0]["loss"],
        "loss_last": last["loss"],
        "validation_last": data.validation[-1] if data.validation else None,
        "validation_lowest": lowest,
    }


def median(values: list[float]) -> float:
    """The middle value (the lower one of two)."""
    return sorted(values)[(len(values) - 1) // 2]


def retrieval_summary(systems: Mapping[str, SystemScores]) -> dict[str, Any]:
    """System -> mean and per-task figures, without the per-query scores (they are in selection.json). Empty without tasks."""
    return {
        system: {
            "title": title,
            "mean_ndcg_10": systems[system].mean,
            "tasks": {name: result.model_dump(exclude=DETAILS) for name, result in systems[system].tasks.items()},
        }
        for system, title in SYSTEMS.items()
        if system in systems
    }


def checkpoint_summary(data: ReportData) -> list[dict[str, Any]]:
    """Where each evaluated checkpoint lies in the training: tokens seen, and the nearest validation pass."""
    found = []
    for row in data.checkpoints:
        nearest = data.validation_at(row.step)
        found.append(
            {
                "step": row.step,
                "tokens": data.tokens_at(row.step),
                "validation_step": nearest["step"] if nearest else None,
                "validation_loss": nearest["validation_loss"] if nearest else None,
            }
        )
    return found


def summary(data: ReportData) -> dict[str, Any]:
    """All figures of a run as plain JSON values.

    `corpus` (documents and words by source and split, licences, versions) is None where the corpus has no corpus.json,
    `evaluation` where the run was not evaluated; a decoder's `curriculum` and `perplexity` are None for an encoder, the latter
    also where it was not measured.
    """
    found: dict[str, Any] = {
        "format": "mecellem.summary/2",
        "run": data.name,
        "settings": data.settings,
        "training": training_summary(data),
        "corpus": data.corpus,
        "curriculum": curriculum_summary(data),
        "perplexity": data.perplexity.model_dump() if data.perplexity else None,
        "evaluation": data.selection and evaluation_summary(data, data.selection),
    }
    return found


def evaluation_summary(data: ReportData, selection: Selection) -> dict[str, Any]:
    """What `mecellem select` found, without the scores of single queries."""
    left = {"checkpoints", "baselines", "test", "unigram", "model"}
    rows = [
        row.model_dump(exclude={"mean_pooled": DETAILED, "post_trained": DETAILED, "training": True})
        for row in selection.checkpoints
    ]
    return {
        **selection.model_dump(exclude=left),
        "model": selection.model.model_dump(),
        "checkpoints": [row | place for row, place in zip(rows, checkpoint_summary(data), strict=True)],
        "validation": {
            "retrieval": retrieval_summary(splits(selection)["validation"][1]),
            "means_of_shared_tasks": shared_means(selection, "validation"),
            "unigram": selection.unigram.model_dump(),
        },
        "test": {
            "tasks": [task.model_dump() for task in selection.test.tasks],
            "left_out": [item.model_dump() for item in selection.test.left_out],
            "retrieval": retrieval_summary(selection.test.systems),
            "means_of_shared_tasks": shared_means(selection, "test"),
            "fill_mask": selection.test.fill_mask.model_dump(),
            "unigram": selection.test.unigram.model_dump(),
        },
    }


def shared_means(selection: Selection, split: str) -> dict[str, float | None]:
    """System -> mean nDCG@10 over the tasks that both splits have."""
    return {name: shared_mean(selection, scores) for name, scores in splits(selection)[split][1].items()}


def write_summary(path: Path, data: ReportData) -> dict[str, Any]:
    """Write `summary(data)` to `path`, whole or not at all, and return it."""
    found = summary(data)
    with atomic_write(path) as handle:
        handle.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return found
