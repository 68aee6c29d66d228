"""Which checkpoint of a run to keep: by retrieval after post-training, not by the pre-training loss.

The Mecellem paper reports that retrieval peaks before the masked-language-model loss is lowest. So every checkpoint is
exported, given the same short contrastive training and scored on the same tasks. The highest mean nDCG@10 is the peak. It
is called better than another checkpoint only where the paired bootstrap interval of the difference excludes 0, with the
confidence raised for the number of comparisons (Bonferroni).

A peak that is not above random weights with the same post-training tells nothing about what was learnt: early in a run
retrieval only falls, because training first destroys the word overlap that random weights measure, and the rule would
keep the least trained checkpoint. Retrieval then cannot choose, and the lowest fill-mask loss does; so it does on a
corpus that allows no retrieval task.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluation.cache import content_key, source_sha256
from evaluation.measure import evaluate_folder, load_embedding, score_system
from evaluation.results import CheckpointScores, Comparison, EvaluationResults, Selection, SystemScores, write_record
from evaluation.retrieval.dense import rank_dense
from evaluation.retrieval.metrics import mean_interval
from evaluation.retrieval.tasks import build_tasks
from evaluation.run_folder import checkpoint_fingerprint, list_checkpoints
from evaluation.settings import EvaluationSettings
from mecellem.console import console
from mecellem.errors import UserError
from mecellem.files import atomic_write, sha256_of
from megatron_recipes.retention import keep
from megatron_recipes.run_folder import read_run
from post_training.model_folder import pick_device
from preprocessing.corpus.read_split import read_split, split_path

SYSTEM = "model_post_trained"
CONFIDENCE = 0.95
RANDOM = "random_post_trained"
RULE = (
    "the highest mean nDCG@10 over tasks after post-training, if that is above random weights with the same post-training, "
    "else the lowest fill-mask loss (over all tokens asked for); where checkpoints cannot be told apart the highest mean "
    "still decides, and of equal means the earlier step"
)

CHOSEN = "chosen by mecellem select"  # how its mark begins
Exporter = Callable[[Path, Path], Any]


def export_once(checkpoint: Path, folder: Path, export: Exporter) -> None:
    """Export `checkpoint` to `folder` unless this code did so from this very checkpoint before."""
    stamp = folder.with_name(f"{folder.name}.key")
    fingerprint = content_key([checkpoint_fingerprint(checkpoint), source_sha256("conversion", "megatron_recipes")])
    if folder.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        return
    shutil.rmtree(folder, ignore_errors=True)
    export(checkpoint, folder)
    with atomic_write(stamp) as handle:
        handle.write(fingerprint)


def differences(best: SystemScores, other: SystemScores) -> list[list[float]]:
    """Per task, the differences of nDCG@10 (`best` minus `other`) on the same queries."""
    ours, theirs = best.tasks, other.tasks
    assert ours.keys() == theirs.keys(), "both were evaluated on the same corpus"
    return [
        [value - theirs[name].per_query[query] for query, value in scores.per_query.items()] for name, scores in ours.items()
    ]


def compare(best: SystemScores, other: SystemScores, step: int, confidence: float) -> Comparison:
    """How sure it is that `best` beats `other`, which belongs to `step` (0: no training at all)."""
    samples = differences(best, other)
    low, high = mean_interval(samples, confidence)
    difference = sum(sum(part) / len(part) for part in samples) / len(samples)
    return Comparison(step=step, difference=difference, interval=(low, high), real=low > 0 or high < 0)


def selection_sentence(best: int, peak: int, over_random: Comparison, comparisons: Sequence[Comparison]) -> str:
    """What the comparisons allow to be said."""
    if not comparisons:
        return f"Step {best} is the run's only checkpoint, so nothing was compared."
    if not (over_random.real and over_random.difference > 0):
        return (
            f"No checkpoint retrieves distinguishably better than random weights with the same post-training (the nearest, "
            f"step {peak}, is {abs(over_random.difference):.3f} in nDCG@10 "
            f"{'above' if over_random.difference > 0 else 'below'} them), so retrieval cannot choose here: step {best} was "
            "kept for its lowest fill-mask loss."
        )
    alike = [str(item.step) for item in comparisons if not item.real]
    if not alike:
        return f"Step {best} retrieves better than every other checkpoint, by more than the choice of queries explains."
    return (
        f"Step {best} has the highest mean, but is not distinguishable from step{'s' if len(alike) > 1 else ''} "
        f"{', '.join(alike)} on these queries: it was taken by the rule for ties, the highest mean."
    )


def rescore(embedding: Path, corpus: Path, settings: EvaluationSettings, device: str) -> float:
    """Mean nDCG@10 of a saved embedding model, loaded and scored from nothing: no cache takes part."""
    tasks, _ = build_tasks(read_split(corpus, "test"), settings.retrieval)
    model = load_embedding(embedding, settings.max_seq_length, pick_device(device))
    return score_system(tasks, lambda task: rank_dense(model, task)).mean_ndcg_10


def checkpoint_scores(
    step: int, tokens_per_step: int | None, checkpoint: Path, out: Path, path: Path, results: EvaluationResults
) -> CheckpointScores:
    """One checkpoint's line of the selection; `path` is its results.json, somewhere under `out`."""
    return CheckpointScores(
        step=step,
        tokens=step * tokens_per_step if tokens_per_step else None,
        checkpoint=str(checkpoint),
        folder=str(path.parent / "hf"),
        results=str(path.relative_to(out)),
        sha256=results.model.sha256,
        fill_mask_top1_mask_only=results.fill_mask.all.top1_mask_only,
        fill_mask_nll=results.fill_mask.all.nll,
        mean_pooled=results.systems["model_mean_pooled"].mean_ndcg_10 if results.systems else None,
        post_trained=results.systems[SYSTEM].mean_ndcg_10 if results.systems else None,
    )


def select(
    rows: Sequence[CheckpointScores], results: Sequence[EvaluationResults], rescored: Callable[[Path], float]
) -> Selection:
    """The selection from every checkpoint's results; `rescored` gives the winner's score after loading it again."""
    if not results[0].systems:
        return select_by_fill_mask(rows)
    scores = [result.systems[SYSTEM].mean_ndcg_10 for result in results]
    peak = max(range(len(rows)), key=lambda number: (scores[number], -rows[number].step))
    others = [number for number in range(len(rows)) if number != peak]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(others))
    top = results[peak].systems[SYSTEM]
    comparisons = [compare(top, results[number].systems[SYSTEM], rows[number].step, confidence) for number in others]
    over_random = compare(top, results[peak].systems[RANDOM], 0, CONFIDENCE)
    by_retrieval = over_random.real and over_random.difference > 0
    best = peak if by_retrieval else rows.index(lowest_fill_mask_loss(rows))
    embedding = Path(results[best].post_training["model"].folder)
    score, again = scores[best], rescored(embedding)
    if abs(score - again) > 1e-3:
        raise UserError(
            f"{embedding} scores {again:.4f} after loading it again, {score:.4f} before: the folder was changed; remove "
            "it and run the evaluation again"
        )
    return Selection(
        checkpoints=list(rows),
        peak_step=rows[peak].step,
        over_random=over_random,
        chosen_by="retrieval" if by_retrieval else "fill-mask",
        best_step=rows[best].step,
        best_checkpoint=rows[best].checkpoint,
        best_folder=rows[best].folder,
        best_embedding=str(embedding),
        best_sha256=weights_sha256(rows[best]),
        score=score,
        rescored=again,
        distinguishable=all(item.real for item in comparisons),
        comparisons=comparisons,
        confidence=confidence,
        rule=RULE,
        sentence=selection_sentence(rows[best].step, rows[peak].step, over_random, comparisons),
    )


def lowest_fill_mask_loss(rows: Sequence[CheckpointScores]) -> CheckpointScores:
    """The checkpoint with the lowest fill-mask loss; of equals the earlier one."""
    return min(rows, key=lambda row: (row.fill_mask_nll, row.step))


def weights_sha256(row: CheckpointScores) -> str:
    """SHA-256 of a checkpoint's exported weights."""
    return sha256_of(Path(row.folder) / "model.safetensors")


def select_by_fill_mask(rows: Sequence[CheckpointScores]) -> Selection:
    """The selection on a corpus without retrieval tasks."""
    best = lowest_fill_mask_loss(rows)
    return Selection(
        checkpoints=list(rows),
        peak_step=None,
        over_random=None,
        chosen_by="fill-mask",
        best_step=best.step,
        best_checkpoint=best.checkpoint,
        best_folder=best.folder,
        best_embedding=None,
        best_sha256=weights_sha256(best),
        score=None,
        rescored=None,
        distinguishable=False,
        comparisons=[],
        confidence=CONFIDENCE,
        rule=RULE,
        sentence=f"The test split allows no retrieval task, so step {best.step} was kept for its lowest fill-mask loss.",
    )


def default_exporter() -> Exporter:
    """`conversion.export.export_checkpoint`; imported here because it brings Megatron-Core."""
    from conversion.export import export_checkpoint

    return export_checkpoint


def evaluate_run(
    run: Path,
    corpus: Path,
    out: Path,
    settings: EvaluationSettings | None = None,
    *,
    device: str = "auto",
    cache: Path | None = None,
    export: Exporter | None = None,
) -> Selection:
    """Export and evaluate every checkpoint of `run` under `out`, choose the best and write `out/selection.json`.

    Writes `out/step_NNNNNNN/{hf/, embedding/, results.json}`, and marks the winner in `run/checkpoints/keep.json`. Everything
    finished is found again by a second call.
    `cache` is `out/cache`, `export(checkpoint, folder)` is `conversion.export.export_checkpoint`, unless given. Raises
    `UserError` for a run without checkpoints, a missing corpus, or a winner that scores differently once loaded again.
    """
    recorded = read_run(run)
    if recorded.get("curriculum") is not None:
        raise UserError(
            f"{run} trained a decoder, which fills no masks: use `mecellem evaluate perplexity` on its checkpoints or exports"
        )
    tokens_per_step = recorded.get("tokens_per_step")
    checkpoints = list_checkpoints(run)
    split_path(corpus, "train"), split_path(corpus, "test")
    settings = settings or EvaluationSettings()
    export = export or default_exporter()
    rows, results = [], []
    for number, (step, checkpoint) in enumerate(checkpoints.items(), start=1):
        console().print(f"checkpoint {number} of {len(checkpoints)}: {checkpoint.name}", markup=False)
        place = out / checkpoint.name
        place.mkdir(parents=True, exist_ok=True)
        export_once(checkpoint, place / "hf", export)
        result = evaluate_folder(
            place / "hf",
            corpus,
            place / "results.json",
            cache or out / "cache",
            settings,
            embedding=place / "embedding",
            device=device,
        )
        results.append(result)
        rows.append(checkpoint_scores(step, tokens_per_step, checkpoint, out, place / "results.json", result))
    selection = select(rows, results, lambda folder: rescore(folder, corpus, settings, device))
    write_record(out / "selection.json", selection)
    reason = f"{CHOSEN} by {selection.chosen_by}, weights {selection.best_sha256[:16]}"
    keep(Path(selection.best_checkpoint), reason, instead_of=CHOSEN)
    return selection
