"""The HTML page: one file, figures inside it, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.measure import SYSTEMS
from evaluation.report import decoder
from evaluation.report.gather import ReportData
from evaluation.report.plots import Drawn
from evaluation.report.summary import training_summary
from evaluation.results import EvaluationResults
from evaluation.tables import FILL_MASK_COLUMNS, FILL_MASK_NOTE, NO_TASK, fill_mask_rows, notes, percent, score
from mecellem.console import human_time
from mecellem.page import csv_uri, data_uri
from mecellem.page import render as render_page
from megatron_recipes.plan import human_count

CAPTIONS = {
    "loss": "Loss in nats per {counted}; each training step thin, the moving average strong.{stages}",
    "dynamics": "{dynamics}. Axes end where 99% of the steps do.",
    "checkpoints": "Each checkpoint was exported and asked for the same [MASK]s; where there are retrieval tasks it was also "
    "given the same short contrastive training and scored on the same queries, with 95% intervals over queries as bars.",
    "systems": "Every system on every task for the kept checkpoint; bars are 95% bootstrap intervals over queries.",
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
    best = data.best
    if best:
        ours, theirs = best.fill_mask.all.top1_mask_only, best.unigram.all.top1_mask_only
        text += f" On held-out text the kept checkpoint fills {percent(ours)} of [MASK]s with the exact token"
        ratio = f"{ours / theirs:.1f} times the" if ours and theirs else "beside"
        text += f", {ratio} {percent(theirs)} of always guessing the most frequent one."
    return text + decoder.perplexity_sentence(data)


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
    best, selection = data.best, data.selection
    if best and selection:
        systems = best.systems
        found += [
            {"label": "Parameters", "value": human_count(best.model.parameters), "note": model_shape(best)},
            {
                "label": "[MASK]s filled",
                "value": percent(best.fill_mask.all.top1_mask_only),
                "note": f"unigram {percent(best.unigram.all.top1_mask_only)}",
            },
        ]
        if best.tasks:
            found.append(
                {
                    "label": "Retrieval, post-trained",
                    "value": score(systems["model_post_trained"].mean_ndcg_10),
                    "note": f"nDCG@10; BM25 {score(systems['bm25'].mean_ndcg_10)}",
                }
            )
        found.append({"label": "Kept checkpoint", "value": f"step {selection.best_step:,}", "note": verdict(data)})
    return found


def model_shape(results: EvaluationResults) -> str:
    """`6 layers × 256, vocabulary 8,192`."""
    return f"{results.model.layers} layers × {results.model.hidden}, vocabulary {results.model.vocabulary:,}"


def verdict(data: ReportData) -> str:
    """How sure the choice of checkpoint is, in a few words."""
    assert data.selection is not None
    if len(data.selection.checkpoints) == 1:
        return "the only one"
    if data.selection.chosen_by == "fill-mask":
        return "by fill-mask loss"
    return "ahead of all others" if data.selection.distinguishable else "by the rule for ties"


def selection_text(data: ReportData) -> list[str]:
    """Plain sentences: which checkpoint, how sure, and where the loss was lowest."""
    selection = data.selection
    assert selection is not None
    text = [selection.sentence]
    peak = selection.peak_step
    first, last = data.checkpoints[0], data.checkpoints[-1]
    lowest = data.lowest_validation()
    if lowest and peak is not None and len(data.checkpoints) > 1:
        where = "before" if peak < lowest["step"] else "not before"
        text.append(
            f"Retrieval after post-training peaks at step {peak:,}, {where} the lowest validation loss (step "
            f"{lowest['step']:,}, {lowest['validation_loss']:.2f} nats). {peak_meaning(data)}"
        )
    if len(data.checkpoints) > 1:
        text.append(
            f"From the first to the last checkpoint the share of [MASK]s filled went from "
            f"{percent(first.fill_mask_top1_mask_only)} to {percent(last.fill_mask_top1_mask_only)}"
            + (
                "."
                if peak is None
                else f", retrieval after post-training from {score(first.post_trained)} to {score(last.post_trained)}."
            )
        )
    if selection.score is not None and selection.rescored is not None:
        same = abs(selection.score - selection.rescored) < 5e-4
        text.append(
            "The kept checkpoint's post-trained model was loaded again from disk and scored again: "
            f"{score(selection.rescored)}{', the same' if same else f' instead of {score(selection.score)}'}."
        )
    return text


def peak_meaning(data: ReportData) -> str:
    """What a peak before the lowest loss means in this run: the paper's effect, or the end of word overlap."""
    assert data.selection is not None
    if data.selection.chosen_by == "retrieval":
        return (
            "The Mecellem paper reports that at scale the peak comes before the lowest loss; this is why checkpoints are "
            "chosen by retrieval where it can choose."
        )
    return (
        "This is not the effect that the Mecellem paper reports at scale: random weights measure word overlap, early training "
        "destroys it before it puts anything in its place, and so the least trained checkpoint looks best."
    )


def checkpoint_rows(data: ReportData) -> list[dict[str, Any]]:
    """One row a checkpoint for the table, with the kept one marked and the peak's lead over the others."""
    assert data.selection is not None
    peak = "–" if data.selection.peak_step is None else "peak"
    leads = {item.step: item for item in data.selection.comparisons}
    rows = []
    for row in data.checkpoints:
        lead = leads.get(row.step)
        validation = data.validation_at(row.step)
        rows.append(
            {
                "step": f"{row.step:,}",
                "tokens": human_count(data.tokens_at(row.step)),
                "loss": f"{validation['validation_loss']:.3f}" if validation else "–",
                "nll": f"{row.fill_mask_nll:.3f}",
                "top1": percent(row.fill_mask_top1_mask_only),
                "pooled": score(row.mean_pooled),
                "trained": score(row.post_trained),
                "lead": f"{lead.difference:+.3f} [{lead.interval[0]:+.3f}, {lead.interval[1]:+.3f}]" if lead else peak,
                "real": "" if lead is None else ("yes" if lead.real else "no"),
                "best": row.step == data.selection.best_step,
            }
        )
    return rows


def retrieval_groups(results: EvaluationResults) -> list[dict[str, Any]]:
    """Tasks with one row a system; the best nDCG@10 of each task is marked."""
    groups = []
    for task in results.tasks:
        scores = {system: results.systems[system].tasks[task.name] for system in SYSTEMS}
        top = max(item.ndcg_10 for item in scores.values())
        rows = [
            {
                "system": SYSTEMS[system],
                "cells": [
                    score(item.ndcg_10),
                    f"{score(item.interval[0])}–{score(item.interval[1])}",
                    score(item.mrr_10),
                    score(item.recall_10),
                    score(item.recall_100),
                ],
                "top": item.ndcg_10 == top,
            }
            for system, item in scores.items()
        ]
        groups.append(
            {"title": task.description, "size": f"{task.queries:,} queries, {task.documents:,} documents", "rows": rows}
        )
    means = {system: results.systems[system].mean_ndcg_10 for system in SYSTEMS}
    rows = [
        {"system": SYSTEMS[system], "cells": [score(mean), "", "", "", ""], "top": mean == max(means.values())}
        for system, mean in means.items()
    ]
    return [*groups, {"title": "Mean over tasks", "size": "tasks weigh the same", "rows": rows}]


def limits(data: ReportData) -> list[str]:
    """What the figures do not show."""
    found = decoder.perplexity_limits(data.perplexity) if data.perplexity else []
    if data.best:
        found += [sentence[0].upper() + sentence[1:] for sentence in notes(data.best)]
        found += [f"Left out: {item.name}: {item.reason}." for item in data.best.left_out]
        masks = data.best.fill_mask.all
        found.append(
            f"Fill-mask asks for {masks.masked:,} tokens of {masks.documents:,} documents, each cut to its first tokens; "
            "sources weigh by their tokens."
        )
        if data.best.tasks:
            found.append(
                "The retrieval tasks take a document's own title or a dictionary's own example as the judgement; no person "
                "graded them. Each query has one right answer, so other good answers count as wrong."
            )
        found.append(
            "The checkpoint was chosen on the test split that the figures come from, so its own figures flatter slightly."
        )
        found.append("One training run and one post-training seed: the spread between seeds is not measured here.")
    return found


def render(data: ReportData, figures: Mapping[str, Drawn], evaluate_hint: str) -> str:
    """The whole page with all figures."""
    facts, best, perplexity = training_summary(data), data.best, data.perplexity
    measured = best or perplexity
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
        best=best,
        selection_text=selection_text(data) if best else [],
        checkpoint_rows=checkpoint_rows(data) if best else [],
        confidence=percent(data.selection.confidence) if data.selection else "",
        groups=retrieval_groups(best) if best and best.tasks else [],
        no_task=NO_TASK[0].upper() + NO_TASK[1:] + ".",
        fill_mask_columns=FILL_MASK_COLUMNS,
        fill_mask_note=FILL_MASK_NOTE,
        fill_mask_rows=fill_mask_rows(best) if best else [],
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
        hardware=measured.hardware if measured else f"{machine.get('platform', '')}, {machine.get('cpus', '?')} cores",
        versions=measured.versions if measured else data.settings.get("versions", {}),
        percent=percent,
        evaluate_hint=evaluate_hint,
    )
