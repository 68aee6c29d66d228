"""The HTML page: one file, figures inside it, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.report import decoder, encoder
from evaluation.report.gather import ReportData
from evaluation.report.plots import Drawn
from evaluation.report.summary import training_summary
from evaluation.selection.tables import FILL_MASK_COLUMNS, FILL_MASK_NOTE, NO_TASK, fill_mask_rows, percent
from mecellem.console import human_time
from mecellem.page import csv_uri, data_uri
from mecellem.page import render as render_page
from megatron_recipes.plan import human_count

CAPTIONS = {
    "loss": "Loss in nats per {counted}; each training step thin, the moving average strong.{stages}",
    "dynamics": "{dynamics}. Axes end where 99% of the steps do.",
    "checkpoints": "Each checkpoint was exported and asked for the same [MASK]s of the validation split; where there are "
    "retrieval tasks it was scored on the same queries, with mean pooling and after the same short contrastive training, with "
    "95% intervals over queries as bars.",
    "systems": "Every system on every task of the test split, for the kept checkpoint; bars are 95% bootstrap intervals over "
    "queries.",
    "curriculum": "Each source's share of the tokens, stage by stage, replayed sources hatched; below, the learning rate and "
    "the sequence length.",
    "perplexity": "Every model on every sub-domain; bars are 95% bootstrap intervals over documents.",
}
EMULATED = "FP8 emulated"  # the label of such a run, wherever it is shown
STAGES = " Dotted lines: where stages begin. Validation reads sequences of the stage's length, so its loss may jump there."


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def headline(data: ReportData) -> str:
    """The run in a sentence or two: what it did and what came out, from the figures."""
    facts = training_summary(data)
    text = f"{human_count(facts['tokens'])} tokens in {facts['steps']:,} steps"
    if facts["planned_steps"] and facts["steps"] < facts["planned_steps"]:
        text += f" of {facts['planned_steps']:,} planned"
    text += f", {EMULATED}" if data.emulated_fp8 else ""
    text += f": training loss {facts['loss_first']:.2f} → {facts['loss_last']:.2f} nats."
    return text + encoder.fill_mask_sentence(data) + decoder.perplexity_sentence(data)


def tiles(data: ReportData) -> list[dict[str, str]]:
    """The key figures: label, value, and what to hold it against."""
    facts = training_summary(data)
    found = [
        {
            "label": "Tokens seen",
            "value": human_count(facts["tokens"]),
            "note": f"in {facts['steps']:,} steps",
        }
    ]
    if data.emulated_fp8:
        found.append({"label": "Precision", "value": EMULATED, "note": f"{data.emulated_fp8}: numerics, not speed"})
    else:
        found[0]["note"] = f"{human_count(facts['tokens_per_second_median'])} a second"
    lowest = facts["validation_lowest"]
    if lowest:
        found.append(
            {
                "label": "Lowest validation loss",
                "value": f"{lowest['validation_loss']:.2f}",
                "note": f"nats, at step {lowest['step']:,}",
            }
        )
    found += decoder.perplexity_tiles(data)
    found += encoder.selection_tiles(data)
    return found


def limits(data: ReportData) -> list[str]:
    """What the figures do not show."""
    found = decoder.perplexity_limits(data.perplexity) if data.perplexity else []
    found += encoder.selection_limits(data)
    return found


def render(data: ReportData, figures: Mapping[str, Drawn], evaluate_hint: str) -> str:
    """The whole page with all figures."""
    facts, selection, perplexity = training_summary(data), data.selection, data.perplexity
    measured = selection or perplexity
    machine = data.settings.get("machine", {})
    stages = STAGES if data.curriculum else ""
    dynamics = ["Learning rate", *([] if data.emulated_fp8 else ["throughput"]), "gradient norm"]
    words = {"counted": data.counted, "stages": stages, "dynamics": " and ".join(", ".join(dynamics).rsplit(", ", 1))}
    return render_page(
        Path(__file__).parent / "page.html.j2",
        data=data,
        title=f"{data.name} · Mecellem report",
        over="Mecellem · report of a training run",
        heading=data.name,
        headline=headline(data),
        tiles=tiles(data),
        figures={
            name: {theme: data_uri(png, "image/png") for theme, png in drawn.images.items()} | {"csv": csv_uri(drawn.csv)}
            for name, drawn in figures.items()
        },
        captions={name: text.format(**words) for name, text in CAPTIONS.items()},
        dynamics=words["dynamics"],
        facts=facts,
        emulated=f"{EMULATED} ({data.emulated_fp8})" if data.emulated_fp8 else "",
        took=human_time(facts["seconds"]) if facts["seconds"] is not None else "",
        selection=selection,
        selection_text=encoder.selection_text(data) if selection else [],
        checkpoint_rows=encoder.checkpoint_rows(data) if selection else [],
        confidence=percent(selection.confidence) if selection else "",
        groups=encoder.retrieval_groups(selection) if selection else [],
        no_task=NO_TASK[0].upper() + NO_TASK[1:] + ".",
        fill_mask_columns=FILL_MASK_COLUMNS,
        fill_mask_note=FILL_MASK_NOTE,
        fill_mask_rows=fill_mask_rows(selection.test.unigram, selection.test.fill_mask) if selection else [],
        stage_rows=decoder.stage_rows(data),
        source_rows=decoder.source_rows(data.curriculum) if data.curriculum else [],
        replacements=decoder.replacements(data),
        perplexity=perplexity,
        models={model.name: model.folder for model in perplexity.models} if perplexity else {},
        perplexity_groups=decoder.perplexity_groups(perplexity) if perplexity else [],
        perplexity_text=decoder.perplexity_text(perplexity) if perplexity else "",
        perplexity_note=decoder.perplexity_note(perplexity) if perplexity else "",
        limits=limits(data),
        settings=dotted(data.settings.get("config", data.settings)),
        origins=data.settings.get("origins", {}),
        evaluation_settings=dotted(measured.settings) if measured else {},
        verification=dotted(selection.model.verification or {}) if selection else {},
        hardware=measured.hardware if measured else f"{machine.get('platform', '')}, {machine.get('cpus', '?')} cores",
        versions=measured.versions if measured else data.settings.get("versions", {}),
        percent=percent,
        evaluate_hint=evaluate_hint,
    )
