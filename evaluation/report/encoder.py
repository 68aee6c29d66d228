"""What the page says of an encoder's run: which checkpoint was kept and why, and what it reaches."""

from __future__ import annotations

from typing import Any

from evaluation.leaderboard.results import TaskResult
from evaluation.report.gather import ReportData
from evaluation.selection.results import SYSTEMS, ModelFacts, Selection
from evaluation.selection.tables import (
    both_splits,
    mean_of,
    ndcg,
    notes,
    percent,
    points,
    score,
    shared_mean,
    splits,
    systems_of,
)
from evaluation.tasks.facts import TaskFacts
from megatron_recipes.plan import human_count

METRICS = ("mrr_at_10", "recall_at_10", "recall_at_100")  # by mteb's names


def fill_mask_sentence(data: ReportData) -> str:
    """What became of masked tokens, for the headline."""
    if data.selection is None:
        return ""
    test = data.selection.test
    ours, theirs = test.fill_mask.all.top1_mask_only, test.unigram.all.top1_mask_only
    ratio = f"{ours / theirs:.1f} times the" if ours and theirs else "beside"
    return (
        f" On held-out text the kept checkpoint fills {percent(ours)} of [MASK]s with the exact token, {ratio} "
        f"{percent(theirs)} of always guessing the most frequent one."
    )


def selection_tiles(data: ReportData) -> list[dict[str, str]]:
    """The kept checkpoint's key figures on the test split."""
    selection = data.selection
    if selection is None:
        return []
    test, systems = selection.test, selection.test.systems
    found = [
        {"label": "Parameters", "value": human_count(selection.model.parameters), "note": model_shape(selection.model)},
        {
            "label": "[MASK]s filled",
            "value": percent(test.fill_mask.all.top1_mask_only),
            "note": f"unigram {percent(test.unigram.all.top1_mask_only)}",
        },
    ]
    for name, label in (("model_post_trained", "Retrieval, post-trained"), ("model_mean_pooled", "Retrieval, mean-pooled")):
        if name in systems:
            note = f"nDCG@10; BM25 {mean_of(systems['bm25'])}"
            found.append({"label": label, "value": mean_of(systems[name]), "note": note})
            break
    found.append({"label": "Kept checkpoint", "value": f"step {selection.best_step:,}", "note": verdict(selection)})
    return found


def model_shape(model: ModelFacts) -> str:
    """`6 layers × 256, vocabulary 8,192`."""
    return f"{model.layers} layers × {model.hidden}, vocabulary {model.vocabulary:,}"


def verdict(selection: Selection) -> str:
    """How sure the choice of checkpoint is, in a few words."""
    if len(selection.checkpoints) == 1:
        return "the only one"
    if selection.chosen_by == "fill-mask":
        return "by fill-mask loss"
    return "ahead of all others" if selection.distinguishable else "by the rule for ties"


def selection_text(data: ReportData) -> list[str]:
    """Plain sentences: which checkpoint, how sure, where retrieval peaks and the loss is lowest, whether rankings agree."""
    selection = data.selection
    assert selection is not None
    text = [selection.sentence]
    rows = data.checkpoints
    if len(rows) > 1:
        text.append(points(selection))
        peak, loss = selection.peak_step, selection.loss_step
        if peak is not None and peak < loss:
            text.append(peak_meaning(selection))
        first, last = rows[0].fill_mask.all.top1_mask_only, rows[-1].fill_mask.all.top1_mask_only
        change = f"From the first to the last checkpoint [MASK]s filled went from {percent(first)} to {percent(last)}"
        ends = [row.scores(selection.metric) for row in (rows[0], rows[-1])]
        text.append(change + (f", retrieval from {mean_of(ends[0])} to {mean_of(ends[1])}." if ends[0] else "."))
    text += [item.sentence for item in selection.agreement]
    if selection.score is not None and selection.rescored is not None:
        same = abs(selection.score - selection.rescored) < 5e-4
        text.append(
            "The kept checkpoint's model was loaded again from disk and scored again: "
            f"{score(selection.rescored)}{', the same' if same else f' instead of {score(selection.score)}'}."
        )
    return text


def peak_meaning(selection: Selection) -> str:
    """What a peak before the lowest loss means in this run: the paper's effect, or the end of word overlap."""
    if selection.chosen_by == "retrieval":
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
    selection = data.selection
    assert selection is not None
    leads = {item.step: item for item in selection.comparisons}
    rows = []
    for row in data.checkpoints:
        lead = leads.get(row.step)
        validation = data.validation_at(row.step)
        rows.append(
            {
                "step": f"{row.step:,}",
                "tokens": human_count(data.tokens_at(row.step)),
                "loss": f"{validation['validation_loss']:.3f}" if validation else "–",
                "nll": f"{row.fill_mask.all.nll:.3f}",
                "top1": percent(row.fill_mask.all.top1_mask_only),
                "pooled": mean_of(row.mean_pooled),
                "trained": mean_of(row.post_trained),
                "lead": f"{lead.difference:+.3f} [{lead.interval[0]:+.3f}, {lead.interval[1]:+.3f}]"
                if lead
                else ("peak" if row.step == selection.peak_step else "–"),
                "real": "" if lead is None else ("yes" if lead.real else "no"),
                "best": row.step == selection.best_step,
            }
        )
    return rows


def retrieval_groups(selection: Selection) -> list[dict[str, Any]]:
    """Tasks with one row a system: validation and test figures beside each other; the best of each column is marked."""
    names, parts = systems_of(selection), splits(selection)
    groups = []
    for task in both_splits(selection) if names else []:
        facts = {split: tasks.get(task) for split, (tasks, _) in parts.items()}
        results = {
            split: {name: systems[name].tasks[task] for name in names if name in systems and task in systems[name].tasks}
            for split, (_, systems) in parts.items()
        }
        known = [item for item in facts.values() if item]
        groups.append({"title": known[0].description, "size": sizes(facts), "rows": task_rows(selection, names, task, results)})
    if groups:
        means = {
            split: {name: shared_mean(selection, found) for name, found in part.items()} for split, (_, part) in parts.items()
        }
        rows = []
        for name in names:
            values = [means[split].get(name) for split in parts]
            rows.append({"system": SYSTEMS[name], "cells": cells_of(values, ["", "", "", ""]), "top": tops(means, values)})
        groups.append({"title": "Mean over the tasks of both splits", "size": "tasks weigh the same", "rows": rows})
    return groups


def sizes(facts: dict[str, TaskFacts | None]) -> str:
    """`validation: 82 queries, 112 documents; test: 186 queries, 267 documents`."""
    found = []
    for split, item in facts.items():
        if item is None:
            found.append(f"{split}: none")
        elif item.items is not None and item.documents is not None:
            found.append(f"{split}: {item.items:,} queries, {item.documents:,} documents")
    return "; ".join(found)


def task_rows(
    selection: Selection, names: list[str], task: str, results: dict[str, dict[str, TaskResult]]
) -> list[dict[str, Any]]:
    """A row a system on one task."""
    values_of = {
        split: {name: ndcg(splits(selection)[split][1][name], task) for name in found} for split, found in results.items()
    }
    rows = []
    for name in names:
        values = [values_of[split].get(name) for split in results]
        result = results["test"].get(name) or results["validation"].get(name)
        spread = score_range(result) if result else "–"
        rest = [score(result.metrics.get(metric)) if result else "–" for metric in METRICS]
        rows.append({"system": SYSTEMS[name], "cells": cells_of(values, [spread, *rest]), "top": tops(values_of, values)})
    return rows


def score_range(result: TaskResult) -> str:
    """`.123–.234`."""
    return "–" if result.interval is None else "–".join(score(end) for end in result.interval)


def cells_of(values: list[float | None], rest: list[str]) -> list[str]:
    """Validation and test score, then the rest."""
    return [*(score(value) for value in values), *rest]


def tops(values_of: dict[str, dict[str, float | None]], values: list[float | None]) -> list[bool]:
    """Which of a row's values are the best of their column."""
    best = [max((value for value in column.values() if value is not None), default=None) for column in values_of.values()]
    return [value is not None and value == top for value, top in zip(values, best, strict=True)]


def selection_limits(data: ReportData) -> list[str]:
    """What the figures do not show."""
    selection = data.selection
    if selection is None:
        return []
    found = [sentence[0].upper() + sentence[1:] for sentence in notes(selection)]
    found += [f"Left out of the validation split's tasks: {item.name}: {item.reason}." for item in selection.left_out]
    found += [f"Left out of the test split's tasks: {item.name}: {item.reason}." for item in selection.test.left_out]
    masks = selection.test.fill_mask.all
    found.append(
        f"Fill-mask asks for {masks.masked:,} tokens of {masks.documents:,} documents, each cut to its first words; sources "
        "weigh by their tokens."
    )
    if systems_of(selection):
        found.append(
            "The retrieval tasks take a document's own title or a dictionary's own example as the judgement; no person "
            "graded them. Each query has one right answer, so other good answers count as wrong."
        )
    found.append(
        "The checkpoint was chosen on the validation split, so its figures there flatter slightly; those of the test split "
        "do not."
    )
    found.append("One training run and one post-training seed: the spread between seeds is not measured here.")
    return found
