"""`mecellem select`: the flags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from evaluation.selection.settings import BUDGET, SelectionSettings
from mecellem.console import step
from mecellem.flags import parse_and_call


def select(
    run: tyro.conf.Positional[Path],
    corpus: Path = Path("data/corpus"),
    budget: int = BUDGET,
    tasks: tuple[str, ...] = ("corpus",),
    steps: tuple[int, ...] = (),
    data: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    split: str = "train",
    task: str | None = None,
    out: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    settings: SelectionSettings = SelectionSettings(),  # noqa: B008 (frozen)
) -> None:
    """Choose the checkpoint of a run to keep: by retrieval after the same short post-training, not by loss.

    Every checkpoint is exported, scored by fill-mask, by retrieval with mean pooling, and by retrieval after the same
    contrastive training; BM25 and random weights that are treated alike stand beside them. All of that is on the corpus's
    validation split; what is kept is then measured on the test split, which did not choose. It is called best only where the
    difference is more than the choice of queries explains, and marked in RUN/checkpoints/keep.json, so that
    `train --keep-checkpoints` leaves it. Where retrieval is not above random weights, or no task can be had, the lowest
    fill-mask loss chooses. A call that was stopped goes on; the same call again only prints.

    As a Slurm array (`--array=0-7`): `--task $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT`, then the same command without it.

    Args:
        run: the folder of a run of `mecellem train`
        corpus: folder with train, validation and test .jsonl.zst (or .jsonl, .jsonl.gz): one {"text": ...} a line; titles make
            retrieval tasks
        budget: optimiser steps of the post-training that each checkpoint gets; 0: none, mean-pooled retrieval chooses
        tasks: what chooses: tasks of retrieval or groups of them, as `mecellem evaluate` names them; corpus: from the
            validation split
        steps: only these checkpoints, by their steps
        data: pairs to post-train on: .jsonl (.gz, .zst) or .parquet files, folders of them, or a data set's id on the Hugging
            Face Hub; crops of the corpus's train split unless given
        columns: anchor, positive and any hard negatives of --data, where their names are not among the usual ones
        split: of a data set on the hub
        task: N/M: measure only every M-th checkpoint from number N (from 0) on, and decide nothing
        out: folder for selection.json; RUN/evaluation unless given
        cache: where finished parts and exported models are kept; OUT/cache unless given (of tasks that are not of the corpus,
            give the one that `mecellem evaluate prefetch` filled)
        device: auto, cpu, cuda or cuda:N
        settings: how it is measured
    """
    from evaluation.selection.measure import FILE, parse_part, select_checkpoint
    from evaluation.selection.tables import print_selection

    out = out or run / "evaluation"
    part = None if task is None else parse_part(task)
    title = f"select a checkpoint of {run}" + ("" if part is None else f", part {task}")
    writes = [out / FILE] if part is None else [cache or out / "cache"]
    with step(title, reads=[run, corpus, *data], writes=writes) as console:
        found = select_checkpoint(
            run,
            corpus,
            out,
            settings,
            budget=budget,
            tasks=tasks,
            steps=steps,
            data=data,
            columns=columns,
            split=split,
            cache=cache,
            device=device,
            part=part,
        )
        if found is None:
            console.print("this part is done; the same command without --task decides when all parts are", markup=False)
        else:
            print_selection(console, found)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem select`."""
    parse_and_call(select, argv, prog="mecellem select")
    return 0
