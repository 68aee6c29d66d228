"""The tables that `mecellem select` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from evaluation.results import EvaluationResults, Selection

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


FILL_MASK_COLUMNS = ("top-1 on [MASK]", "top-1, 80/10/10", "top-5, 80/10/10", "nats/token, 80/10/10")
FILL_MASK_NOTE = (
    "80/10/10 is over all tokens asked for, the kind of number that the Mecellem paper states: 80% shown as [MASK], 10% as "
    "a random token, 10% unchanged. A model can copy the unchanged ones, the unigram baseline cannot, so the two are "
    "compared on [MASK]."
)
NO_TASK = "retrieval was not measured: the test split allows no task (documents with a title of their own make one)"


def percent(value: float | None) -> str:
    """`12.3%`, `<0.1%`, or a dash for what does not exist."""
    if value is None:
        return "–"
    return "<0.1%" if 0 < value < 0.0005 else f"{value:.1%}"


def score(value: float | None) -> str:
    """`.123`, as retrieval scores are usually printed; a dash for what does not exist."""
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


def fill_mask_table(results: EvaluationResults) -> Table:
    """Rows: the model and the unigram baseline; columns: `FILL_MASK_COLUMNS`, then top-1 on [MASK] per source."""
    from rich.table import Table

    scores = results.fill_mask
    table = Table(title=f"fill-mask, {scores.probability:.0%} of tokens are asked for", title_justify="left")
    table.add_column("predictor")
    for name in (*FILL_MASK_COLUMNS, *(f"[MASK], {source}" for source in scores.by_source)):
        table.add_column(name.replace("[", r"\["), justify="right")
    for row in fill_mask_rows(results):
        table.add_row(*row)
    return table


def fill_mask_rows(results: EvaluationResults) -> list[list[str]]:
    """The cells of `fill_mask_table`, unigram first."""
    return [
        [
            name,
            percent(item.all.top1_mask_only),
            percent(item.all.top1),
            percent(item.all.top5),
            f"{item.all.nll:.2f}",
            *(percent(counts.top1_mask_only) for counts in item.by_source.values()),
        ]
        for name, item in (("unigram (no context)", results.unigram), ("model", results.fill_mask))
    ]


def retrieval_table(results: EvaluationResults, names: Mapping[str, str]) -> Table:
    """One row a task and system: nDCG@10 with its 95% interval, MRR@10, recall@10, recall@100."""
    from rich.table import Table

    table = Table(title="retrieval on the test split", title_justify="left")
    table.add_column("task")
    table.add_column("system")
    for name in ("nDCG@10", "95% interval", "MRR@10", "recall@10", "recall@100"):
        table.add_column(name, justify="right")
    for task in results.tasks:
        for row, (system, title) in enumerate(names.items()):
            item = results.systems[system].tasks[task.name]
            table.add_row(
                f"{task.description} ({task.queries} queries, {task.documents} documents)" if row == 0 else "",
                title,
                score(item.ndcg_10),
                f"{score(item.interval[0])}–{score(item.interval[1])}",
                score(item.mrr_10),
                score(item.recall_10),
                score(item.recall_100),
                end_section=row == len(names) - 1,
            )
    for row, (system, title) in enumerate(names.items()):
        mean = results.systems[system].mean_ndcg_10
        table.add_row("mean over tasks" if row == 0 else "", title, score(mean))
    return table


def print_results(console: Console, results: EvaluationResults, names: Mapping[str, str]) -> None:
    """Both tables and what to think of them."""
    scores = results.fill_mask.all
    console.print(fill_mask_table(results))
    console.print(f"{scores.masked:,} tokens asked for in {scores.documents} documents, cut to their first tokens.")
    console.print(FILL_MASK_NOTE, markup=False)
    if results.tasks:
        console.print(retrieval_table(results, names))
    else:
        console.print(NO_TASK, markup=False)
    for item in results.left_out:
        console.print(f"left out: {item.name}: {item.reason}", markup=False)
    for note in notes(results):
        console.print(f"note: {note}", markup=False)


def print_selection(console: Console, selection: Selection) -> None:
    """One row a checkpoint, then which to keep and how sure that is."""
    from rich.table import Table

    table = Table(title="checkpoints", title_justify="left")
    for name in (
        "step",
        "fill-mask nats/token",
        r"top-1 on \[MASK]",
        "nDCG@10 mean-pooled",
        "nDCG@10 post-trained",
        "behind the peak",
    ):
        table.add_column(name, justify="right")
    behind = {item.step: item for item in selection.comparisons}
    peak = "–" if selection.peak_step is None else "peak"
    for row in sorted(selection.checkpoints, key=lambda item: item.step):
        lead = behind.get(row.step)
        table.add_row(
            f"{row.step:,}",
            f"{row.fill_mask_nll:.3f}",
            percent(row.fill_mask_top1_mask_only),
            score(row.mean_pooled),
            score(row.post_trained),
            f"{lead.difference:.3f}{'' if lead.real else ' (not distinguishable)'}" if lead else peak,
        )
    console.print(table)
    console.print(selection.sentence, markup=False)
    console.print(f"best checkpoint {selection.best_checkpoint}, as a model folder {selection.best_folder}", markup=False)


def notes(results: EvaluationResults) -> list[str]:
    """Plain sentences on what the retrieval figures do and do not show, from the figures themselves."""
    systems = results.systems
    if not systems:
        return []
    model, random = systems["model_post_trained"].mean_ndcg_10, systems["random_post_trained"].mean_ndcg_10
    found = []
    if systems["model_mean_pooled"].mean_ndcg_10 < systems["random_mean_pooled"].mean_ndcg_10:
        found.append(
            "mean-pooled, this model retrieves worse than random weights, which hash words into vectors and so "
            "measure word overlap; a masked language model is no retriever before post-training."
        )
    relation = "above" if model > random else "not above"
    found.append(f"after the same post-training the model is {relation} random weights ({score(model)} and {score(random)}).")
    if model < systems["bm25"].mean_ndcg_10:
        found.append(f"BM25 is ahead at {score(systems['bm25'].mean_ndcg_10)}: expect that from minutes of training.")
    found.append("intervals cover the choice of queries, not the seed of training.")
    return found
