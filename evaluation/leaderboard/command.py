"""`mecellem evaluate`: one or more models on the same tasks, in one table with BM25."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from evaluation.encoders.settings import EncoderSettings
from evaluation.tasks.facts import Category
from evaluation.tasks.settings import CorpusTaskSettings
from mecellem.console import step
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call


def evaluate(
    models: tyro.conf.Positional[tuple[str, ...]],
    tasks: tuple[str, ...] = ("corpus",),
    corpus: Path = Path("data/corpus"),
    out: Path = Path("data/evaluation"),
    cache: Path = Path(".cache"),
    encoders: Path | None = None,
    categories: tuple[Category, ...] = (),
    device: str = "auto",
    settings: EncoderSettings = EncoderSettings(),  # noqa: B008 (frozen)
    task_settings: CorpusTaskSettings = CorpusTaskSettings(),  # noqa: B008 (frozen)
) -> None:
    """Models of any kind on retrieval, bitext, classification, clustering and similarity tasks, in one table with BM25.

    A model is a Hugging Face folder (mean pooling where it names none), a sentence-transformers or model2vec folder, a
    Megatron checkpoint (.../checkpoints/step_NNNNNNN, exported first), a hub id, `use` (Universal Sentence Encoder), `akana`
    (static Turkish vectors) or `bm25`, each also as NAME=MODEL. Tasks are mteb's and run through its own evaluators. Finished
    parts are kept by model, task revision and code, so a call that was interrupted goes on where it was, and the same call
    again only prints. Means are mteb's: over all tasks, and over the means of categories; a system that lacks a task has no
    such mean.

    Args:
        models: what to evaluate, any number
        tasks: names of tasks or groups: corpus (from --corpus), local, tr-mteb, mecellem-legal, mizan
        corpus: folder with test.jsonl.zst (or .jsonl, .jsonl.gz): its titles and texts are retrieval tasks
        out: folder for results.json, leaderboard.csv and leaderboard.png
        cache: where the tasks' data are (`mecellem evaluate prefetch` fills it) and finished parts are kept
        encoders: YAML file with settings of single models, `NAME: {query_prompt: "query: ", document_prompt: "passage: "}`
        categories: of the tasks only those of these categories; `mecellem evaluate retrieval` is the one with that word
        device: auto, cpu, cuda or cuda:N
        settings: how texts become vectors
        task_settings: how large the tasks from --corpus are
    """
    from evaluation.leaderboard.measure import evaluate_systems
    from evaluation.leaderboard.plot import draw
    from evaluation.leaderboard.tables import board_csv, print_board

    files = [out / name for name in ("results.json", "leaderboard.csv", "leaderboard.png")]
    kinds = f" on {', '.join(categories)}" if categories else ""
    title = f"evaluate {len(models)} model{'' if len(models) == 1 else 's'}{kinds}"
    with step(title, reads=[*models, *([corpus] if "corpus" in tasks else [])], writes=files) as console:
        board = evaluate_systems(
            models, tasks, corpus, out, cache, settings, task_settings, device, encoders=encoders, categories=categories
        )
        with atomic_write(files[1]) as handle:
            handle.write(board_csv(board))
        with atomic_write(files[2], "wb") as handle:
            handle.write(draw(board))
        print_board(console, board)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem evaluate`."""
    parse_and_call(evaluate, argv, prog="mecellem evaluate")
    return 0


def main_retrieval(argv: Sequence[str]) -> int:
    """Entry point of `mecellem evaluate retrieval`."""
    parse_and_call(evaluate, [*argv, "--categories", "retrieval"], prog="mecellem evaluate retrieval")
    return 0
