"""What the page says of a decoder's run: the curriculum that it went through, and its perplexity before and after."""

from __future__ import annotations

from typing import Any

from evaluation.perplexity.results import ModelScores, PerplexityResults
from evaluation.perplexity.tables import CHANGE_NOTE, bits_cells, coverage, perplexity_cells, rows
from evaluation.report.gather import ReportData
from evaluation.selection.tables import percent
from megatron_recipes.config import RopeScaling
from megatron_recipes.curriculum_check import rate_text
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.data.curriculum_stage import Stage
from megatron_recipes.plan import human_count


def stage_rows(data: ReportData) -> list[list[str]]:
    """One row a stage: name, tokens, share of them done, sequence length, batch, learning rate, attention and RoPE."""
    found, begin, seen = [], 0, int(data.training[-1]["tokens"])
    for number, stage in enumerate(data.curriculum.stages if data.curriculum else (), start=1):
        done = min(max(seen - begin, 0), stage.trained_tokens)
        begin += stage.trained_tokens
        found.append(
            [
                f"{number} {stage.name}",
                f"{stage.trained_tokens:,}",
                percent(done / stage.trained_tokens),
                f"{stage.seq_len:,}",
                f"{stage.global_batch_tokens:,}",
                rate_text(stage.lr),
                f"{'within' if stage.attention == 'document' else 'across'} documents{rope_text(stage)}",
            ]
        )
    return found


def rope_text(stage: Stage) -> str:
    """`; RoPE base 5,000,000, yarn 4 x 32,768`; nothing where the stage leaves RoPE as it was."""
    parts = [] if stage.rope_theta is None else [f"base {stage.rope_theta:,.10g}"]
    parts += [] if stage.rope_scaling is None else [scaling_text(stage.rope_scaling)]
    return f"; RoPE {', '.join(parts)}" if parts else ""


def scaling_text(scaling: RopeScaling) -> str:
    """`yarn 4 x 32,768`: factor and positions of pre-training."""
    if scaling.rope_type == "none":
        return "not scaled"
    return f"{scaling.rope_type} {scaling.factor:g} × {scaling.original_max_position_embeddings:,}"


def source_rows(curriculum: Curriculum) -> list[list[str]]:
    """One row a source: its name and, for each stage, its share and how often it may have been read by the stage's end."""
    names = {source.name: source.replay for stage in curriculum.stages for source in stage.sources}
    found = []
    for name, replay in names.items():
        cells = []
        for stage in curriculum.stages:
            cell = "–"
            for source, share in zip(stage.sources, stage.weights, strict=True):
                if source.name == name:
                    cell = f"{share:.1%}" + ("" if source.max_epochs == 1 else f" (≤ {source.max_epochs:g} epochs)")
            cells.append(cell)
        found.append([name + (" (replay)" if replay else ""), *cells])
    return found


def replacements(data: ReportData) -> list[str]:
    """A sentence for each curriculum that another one replaced."""
    return [
        f"Until step {step:,} ({human_count(data.tokens_at(step))} tokens) another curriculum held, whose text is in run.yaml; "
        "shares of a stage that was under way are those of the last one."
        for step in replaced_after_steps(data)
    ]


def replaced_after_steps(data: ReportData) -> list[int]:
    """The last step of every curriculum that another one replaced."""
    return [int(earlier["replaced_after_step"]) for earlier in data.settings.get("earlier_curricula", [])]


def curriculum_summary(data: ReportData) -> dict[str, Any] | None:
    """The curriculum as plain values; None for an encoder."""
    if data.curriculum is None:
        return None
    stages = [
        {
            **stage.model_dump(mode="json"),
            "steps": stage.steps,
            "trained_tokens": stage.trained_tokens,
            "shares": {source.name: share for source, share in zip(stage.sources, stage.weights, strict=True)},
        }
        for stage in data.curriculum.stages
    ]
    return {"stages": stages, "replaced_after_steps": replaced_after_steps(data)}


def perplexity_groups(results: PerplexityResults) -> list[dict[str, Any]]:
    """Sub-domains, and last all texts, with a row a model: perplexity, bits per byte, intervals, changes from the first."""
    groups = []
    for part in zip(*map(rows, results.models), strict=True):
        domain, first, _ = part[0]
        cells = [
            {"model": model.name, "cells": perplexity_cells(score, change) + bits_cells(score, change)}
            for model, (_, score, change) in zip(results.models, part, strict=True)
        ]
        size = f"{first.documents:,} documents, {human_count(first.bytes)} bytes"
        groups.append({"title": domain, "size": size, "rows": cells})
    return groups


def perplexity_text(results: PerplexityResults) -> str:
    """How it was measured."""
    settings = results.settings
    return (
        f"Every token of {results.texts.documents:,} held-out documents is scored once, in windows of {settings['window']:,} "
        f"tokens that slide on by {settings['stride']:,}, in {settings['dtype']}. Intervals (95%) redraw documents, the same "
        "ones for all models."
    )


def perplexity_note(results: PerplexityResults) -> str:
    """What stands below the table: what changes are from, and what was left out."""
    changes = f"Changes are {CHANGE_NOTE}. " if len(results.models) > 1 else ""
    left = coverage(results)
    return f"{changes}{left[0].upper()}{left[1:]}."


def perplexity_sentence(data: ReportData) -> str:
    """What became of the perplexity, for the headline."""
    pair = data.before_and_after
    if pair is None:
        return ""
    before, after = pair
    if after is before:
        return f" On held-out text {after.name} has a perplexity of {after.all.perplexity:.2f}."
    if not comparable(after):
        bits = f"{before.all.bits_per_byte:.3f} ({before.name}) → {after.all.bits_per_byte:.3f}"
        return f" On held-out text bits per byte went {bits}."
    change = after.change.perplexity if after.change else 0.0
    figures = f"{before.all.perplexity:.2f} ({before.name}) → {after.all.perplexity:.2f}, {change:+.1%}"
    return f" On held-out text perplexity went {figures}."


def comparable(model: ModelScores) -> bool:
    """Whether a model's perplexities compare with the first model's: both cut the texts into the same tokens."""
    return model.change is None or model.change.perplexity is not None


def perplexity_tiles(data: ReportData) -> list[dict[str, str]]:
    """The run's perplexity and bits per byte on all texts, beside those of the first model."""
    pair = data.before_and_after
    if pair is None:
        return []
    before, after = pair
    notes = ["on all texts", "on all texts"]
    if after is not before:
        notes[1] = f"{before.name} {before.all.bits_per_byte:.3f}"
        notes[0] = f"{before.name} {before.all.perplexity:.2f}" if comparable(after) else f"{before.name} has other tokens"
    return [
        {"label": "Perplexity", "value": f"{after.all.perplexity:.2f}", "note": notes[0]},
        {"label": "Bits per byte", "value": f"{after.all.bits_per_byte:.3f}", "note": notes[1]},
    ]


def perplexity_limits(results: PerplexityResults) -> list[str]:
    """What the figures do not show."""
    found = [
        "Intervals of perplexity redraw documents: they tell what other documents of the same kind would show, not what "
        "another training run would."
    ]
    if not all(map(comparable, results.models)):
        found.append("Models that cut the texts into other tokens compare by bits per byte only.")
    return found
