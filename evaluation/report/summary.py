"""`summary.json`: every figure that the report's tables show, for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.measure import SYSTEMS
from evaluation.report.decoder import curriculum_summary
from evaluation.report.gather import ReportData
from evaluation.results import EvaluationResults
from mecellem.files import atomic_write


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


def retrieval_summary(results: EvaluationResults) -> dict[str, Any]:
    """System -> mean and per-task figures, without the per-query scores (they are in results.json). Empty without tasks."""
    return {
        system: {
            "title": title,
            "mean_ndcg_10": results.systems[system].mean_ndcg_10,
            "tasks": {name: score.model_dump(exclude={"per_query"}) for name, score in results.systems[system].tasks.items()},
        }
        for system, title in SYSTEMS.items()
        if system in results.systems
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
    best, selection = data.best, data.selection
    found: dict[str, Any] = {
        "format": "mecellem.summary/1",
        "run": data.name,
        "settings": data.settings,
        "training": training_summary(data),
        "corpus": data.corpus,
        "curriculum": curriculum_summary(data),
        "perplexity": data.perplexity.model_dump() if data.perplexity else None,
        "evaluation": None,
    }
    if best and selection:
        found["evaluation"] = {
            "model": best.model.model_dump(),
            "hardware": best.hardware,
            "versions": best.versions,
            "settings": best.settings,
            "checkpoints": checkpoint_summary(data),
            "selection": selection.model_dump(),
            "fill_mask": best.fill_mask.model_dump(),
            "unigram": best.unigram.model_dump(),
            "tasks": [task.model_dump() for task in best.tasks],
            "left_out": [item.model_dump() for item in best.left_out],
            "retrieval": retrieval_summary(best),
        }
    return found


def write_summary(path: Path, data: ReportData) -> dict[str, Any]:
    """Write `summary(data)` to `path`, whole or not at all, and return it."""
    found = summary(data)
    with atomic_write(path) as handle:
        handle.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return found
