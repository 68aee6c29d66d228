"""`mecellem select`: which checkpoint of a run to keep, by what it retrieves after the same short post-training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from evaluation.settings import EvaluationSettings
from mecellem.console import step
from mecellem.flags import parse_and_call


def select(
    folder: tyro.conf.Positional[Path],
    corpus: Path = Path("data/corpus"),
    out: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    settings: EvaluationSettings = EvaluationSettings(),  # noqa: B008 (frozen)
) -> None:
    """Choose the checkpoint of a run to keep: by retrieval after the same short post-training, not by loss.

    Every checkpoint is exported, given the same contrastive training and scored: fill-mask on held-out text beside the
    unigram baseline, retrieval (nDCG@10, MRR@10, recall) beside BM25 and a random-weights model of the same shape. The one that
    is kept is marked in RUN/checkpoints/keep.json, so that `train --keep-checkpoints` leaves it. A single model folder gets the
    same figures. Any corpus will do, one {"text": ...} a line: texts with a "title" make retrieval tasks; where there are none,
    only fill-mask is measured.

    Args:
        folder: the folder of a run, or a Hugging Face model folder as `mecellem convert export` writes it
        corpus: folder with train.jsonl.zst and test.jsonl.zst (or .jsonl, .jsonl.gz), as `mecellem corpus fetch` writes it
        out: where all figures go: FOLDER/../evaluation/results.json for a model; for a run the folder RUN/evaluation
        cache: where finished parts are kept, so that nothing is measured twice; beside the figures unless given
        device: auto, cpu, cuda or cuda:N
        settings: how it is measured
    """
    from evaluation.checkpoints import evaluate_run
    from evaluation.measure import SYSTEMS, evaluate_folder
    from evaluation.tables import print_results, print_selection

    if (folder / "run.yaml").is_file():
        out = out or folder / "evaluation"
        with step(f"select a checkpoint of {folder}", reads=[folder, corpus], writes=[out]) as console:
            selection = evaluate_run(folder, corpus, out, settings, device=device, cache=cache)
            print_selection(console, selection)
        return
    out = out or folder.resolve().parent / "evaluation" / "results.json"
    with step(f"measure {folder}", reads=[folder, corpus], writes=[out]) as console:
        results = evaluate_folder(folder, corpus, out, cache or out.parent / "cache", settings, device=device)
        print_results(console, results, SYSTEMS)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem select`."""
    parse_and_call(select, argv, prog="mecellem select")
    return 0
