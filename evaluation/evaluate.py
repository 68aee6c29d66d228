"""`mecellem evaluate`: a model folder, or every checkpoint of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from evaluation.settings import EvaluationSettings
from mecellem.console import step
from mecellem.flags import parse_and_call


def evaluate(
    folder: tyro.conf.Positional[Path],
    corpus: Path = Path("data/corpus"),
    out: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    settings: EvaluationSettings = EvaluationSettings(),  # noqa: B008 (frozen)
) -> None:
    """Fill-mask accuracy and retrieval of a model folder, or of every checkpoint of a run, beside baselines.

    Fill-mask on held-out text stands beside the unigram baseline, retrieval (nDCG@10, MRR@10, recall) beside BM25 and
    a random-weights model of the same shape, mean-pooled and after the same short contrastive training. A run's
    checkpoints are exported first, and the one to keep is chosen by retrieval after post-training. Any corpus will do,
    one {"text": ...} a line: texts with a "title" make retrieval tasks; where there are none, only fill-mask is measured.

    Args:
        folder: a Hugging Face model folder, as `mecellem convert export` writes it, or the folder of a run
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
        with step(f"evaluate the checkpoints of {folder}", reads=[folder, corpus], writes=[out]) as console:
            selection = evaluate_run(folder, corpus, out, settings, device=device, cache=cache)
            print_selection(console, selection)
        return
    out = out or folder.resolve().parent / "evaluation" / "results.json"
    with step(f"evaluate {folder}", reads=[folder, corpus], writes=[out]) as console:
        results = evaluate_folder(folder, corpus, out, cache or out.parent / "cache", settings, device=device)
        print_results(console, results, SYSTEMS)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem evaluate`."""
    parse_and_call(evaluate, argv, prog="mecellem evaluate")
    return 0
