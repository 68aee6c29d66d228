"""The tables that `mecellem select` prints, and the words and cells that the report shares with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.fill_mask.results import FillMaskScores
from evaluation.selection.choice import WHAT
from evaluation.selection.results import SYSTEMS, Selection, SystemScores
from evaluation.tasks.facts import TaskFacts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FILL_MASK_COLUMNS = ("top-1 on [MASK]", "top-1, 80/10/10", "top-5, 80/10/10", "nats/token, 80/10/10")
FILL_MASK_NOTE = (
    "80/10/10 is over all tokens asked for, the kind of number that the Mecellem paper states: 80% shown as [MASK], 10% as "
    "a random token, 10% unchanged. A model can copy the unchanged ones, the unigram baseline cannot, so the two are "
    "compared on [MASK]."
)
NO_TASK = "retrieval was not measured: there is no task (documents with a title of their own make one)"
DASH = "–"


def percent(value: float | None) -> str:
    """`12.3%`, `<0.1%`, or a dash for what does not exist."""
    if value is None:
        return DASH
    return "<0.1%" if 0 < value < 0.0005 else f"{value:.1%}"


def score(value: float | None) -> str:
    """`.123`, as retrieval scores are usually printed; a dash for what does not exist."""
    return DASH if value is None else f"{value:.3f}".removeprefix("0")


def fill_mask_rows(unigram: FillMaskScores, model: FillMaskScores) -> list[list[str]]:
    """Name, `FILL_MASK_COLUMNS`, then top-1 on [MASK] per source; unigram first."""
    return [
        [
            name,
            percent(item.all.top1_mask_only),
            percent(item.all.top1),
            percent(item.all.top5),
            f"{item.all.nll:.2f}",
            *(percent(counts.top1_mask_only) for counts in item.by_source.values()),
        ]
        for name, item in (("unigram (no context)", unigram), ("model", model))
    ]


def step_at(step: int, tokens: int | None) -> str:
    """`step 100 (409,600 tokens)`."""
    return f"step {step:,}" + ("" if tokens is None else f" ({tokens:,} tokens)")


def points(selection: Selection) -> str:
    """Where retrieval peaks and where the loss is lowest."""
    lowest = f"the fill-mask loss is lowest at {step_at(selection.loss_step, selection.loss_tokens)}."
    if selection.peak_step is None:
        return lowest[0].upper() + lowest[1:]
    return f"Retrieval {WHAT[selection.metric]} peaks at {step_at(selection.peak_step, selection.peak_tokens)}; {lowest}"


def checkpoint_table(selection: Selection) -> Table:
    """One row a checkpoint, on the validation split; below them the baselines."""
    from rich.table import Table

    table = Table(title="checkpoints, on the validation split", title_justify="left")
    titles = ("step", "fill-mask nats", r"top-1 on \[MASK]", "nDCG@10 mean-pooled", "nDCG@10 post-trained", "peak minus this")
    for name in titles:
        table.add_column(name, justify="right")
    behind = {item.step: item for item in selection.comparisons}
    last = selection.checkpoints[-1].step
    for row in selection.checkpoints:
        lead = behind.get(row.step)
        table.add_row(
            f"{row.step:,}",
            f"{row.fill_mask.all.nll:.3f}",
            percent(row.fill_mask.all.top1_mask_only),
            mean_of(row.mean_pooled),
            mean_of(row.post_trained),
            f"{lead.difference:.3f}{'' if lead.real else ' (not distinguishable)'}"
            if lead
            else ("peak" if row.step == selection.peak_step else DASH),
            end_section=row.step == last,
        )
    unigram, found = selection.unigram.all, selection.baselines
    table.add_row("unigram", f"{unigram.nll:.3f}", percent(unigram.top1_mask_only), DASH, DASH, DASH)
    if found:
        random = [mean_of(found.get(f"random_{name}")) for name in ("mean_pooled", "post_trained")]
        table.add_row("random weights", DASH, DASH, *random, DASH)
        table.add_row("BM25", DASH, DASH, mean_of(found["bm25"]), DASH, DASH)
    return table


def mean_of(scores: SystemScores | None) -> str:
    """A system's mean."""
    return score(None if scores is None else scores.mean)


def split_table(selection: Selection) -> Table:
    """The kept checkpoint and the baselines: nDCG@10 on every task of the validation and of the test split."""
    from rich.table import Table

    table = Table(title=f"step {selection.best_step:,}: validation and test split", title_justify="left")
    for name in ("nDCG@10", "split", "queries"):
        table.add_column(name, justify="right" if name == "queries" else "left")
    names = systems_of(selection)
    for name in names:
        table.add_column(SYSTEMS[name], justify="right", overflow="fold")
    for task in both_splits(selection):
        for split, (tasks, systems) in splits(selection).items():
            facts = tasks.get(task)
            cells = [score(ndcg(systems[name], task)) if name in systems and facts else DASH for name in names]
            size = f"{facts.items:,}" if facts and facts.items is not None else DASH
            table.add_row(task if split == "validation" else "", split, size, *cells, end_section=split == "test")
    for split, (_, systems) in splits(selection).items():
        cells = [score(shared_mean(selection, systems[name])) if name in systems else DASH for name in names]
        table.add_row("mean over tasks of both" if split == "validation" else "", split, "", *cells)
    return table


def splits(selection: Selection) -> dict[str, tuple[dict[str, TaskFacts], dict[str, SystemScores]]]:
    """Split -> its tasks by name, and the kept checkpoint's and the baselines' scores."""
    best = selection.best
    own = {"model_mean_pooled": best.mean_pooled, "model_post_trained": best.post_trained}
    validation = selection.baselines | {name: found for name, found in own.items() if found is not None}
    return {
        "validation": ({task.name: task for task in selection.tasks}, validation),
        "test": ({task.name: task for task in selection.test.tasks}, selection.test.systems),
    }


def systems_of(selection: Selection) -> list[str]:
    """The systems that were scored on either split, in the order of `SYSTEMS`."""
    found = {name for _, systems in splits(selection).values() for name in systems}
    return [name for name in SYSTEMS if name in found]


def both_splits(selection: Selection) -> list[str]:
    """Names of the tasks of either split."""
    return list(dict.fromkeys(task.name for task in (*selection.tasks, *selection.test.tasks)))


def shared_mean(selection: Selection, scores: SystemScores) -> float | None:
    """The mean over the tasks that both splits have, so that the two compare; None without one."""
    both = {task.name for task in selection.tasks} & {task.name for task in selection.test.tasks}
    found = [value for name in scores.tasks if name in both and (value := ndcg(scores, name)) is not None]
    return sum(found) / len(found) if found else None


def ndcg(scores: SystemScores, task: str) -> float | None:
    """A system's nDCG@10 on a task, over its subsets; None where it has not done it."""
    result = scores.tasks.get(task)
    if result is None or result.per_item is None:
        return None
    parts = [sum(found.values()) / len(found) for found in result.per_item.values()]
    return sum(parts) / len(parts)


def print_selection(console: Console, selection: Selection) -> None:
    """The checkpoints, which to keep and how sure that is, and what it reaches on the test split."""
    console.print(checkpoint_table(selection))
    for sentence in (selection.sentence, points(selection), *(item.sentence for item in selection.agreement)):
        console.print(sentence, markup=False)
    if systems_of(selection):
        console.print(split_table(selection))
    else:
        console.print(NO_TASK, markup=False)
    masks, common = selection.test.fill_mask.all, selection.test.unigram.all
    console.print(
        f"test split, {masks.masked:,} masked tokens: {masks.nll:.3f} nats, {percent(masks.top1_mask_only)} on [MASK] "
        f"(unigram {common.nll:.3f}, {percent(common.top1_mask_only)})",
        markup=False,
    )
    for note in notes(selection):
        console.print(f"note: {note}", markup=False)
    console.print(f"best checkpoint {selection.best_checkpoint}, as a model folder {selection.best_folder}", markup=False)
    if selection.best_embedding:
        console.print(f"after post-training {selection.best_embedding}", markup=False)


def notes(selection: Selection) -> list[str]:
    """Plain sentences on what the retrieval figures do and do not show, from the test split's figures."""
    means = {name: found.mean for name, found in selection.test.systems.items()}
    if not means:
        return []
    found = []
    if means["model_mean_pooled"] < means["random_mean_pooled"]:
        found.append(
            "mean-pooled, this model retrieves worse than random weights, which hash words into vectors and so "
            "measure word overlap; a masked language model is no retriever before post-training."
        )
    best = "model_mean_pooled"
    if "model_post_trained" in means:
        best, random = "model_post_trained", means["random_post_trained"]
        relation = "above" if means[best] > random else "not above"
        found.append(
            f"after the same post-training the model is {relation} random weights ({score(means[best])} and {score(random)})."
        )
    if means[best] < means["bm25"]:
        found.append(f"BM25 is ahead at {score(means['bm25'])}: expect that from minutes of training.")
    found.append("intervals cover the choice of queries, not the seed of training.")
    return found
