"""`mecellem post-train contrastive`: an embedding model out of a pre-trained one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from mecellem.console import console, step
from mecellem.errors import UserError
from mecellem.flags import parse_and_call
from post_training.contrastive.record import TRAINING_RECORD
from post_training.contrastive.settings import FULL, ContrastiveSettings
from post_training.contrastive.train import train_contrastive
from post_training.pairs import PairSet, read_pairs
from preprocessing.corpus.document import Document
from preprocessing.corpus.read_split import read_split

if TYPE_CHECKING:
    from rich.console import Console

PROG = "mecellem post-train contrastive"


def contrastive(
    model: tyro.conf.Positional[str],
    out: Path,
    data: tuple[str, ...] = (),
    corpus: Path | None = None,
    columns: tuple[str, ...] = (),
    split: str = "train",
    guide: str | None = None,
    validation: tuple[str, ...] = (),
    validation_split: str = "validation",
    evaluate_every: int = 0,
    checkpoint_every: int = 500,
    tensorboard: Path | None = None,
    workers: int = 0,
    cache: Path | None = None,
    device: str = "auto",
    settings: ContrastiveSettings = FULL,
) -> None:
    """Train an embedding model on pairs, triplets or crops of documents, with sentence-transformers.

    A text should be nearer to its positive than to everything else in the batch. OUT is a sentence-transformers folder that
    loads without this package. A stopped training (SIGTERM, kill, power cut) goes on where it was when the same command is
    given again. Several GPUs or processes: `torchrun --nproc-per-node 4 -m mecellem post-train contrastive ...`; the batch is
    the same one, shared by the ranks.

    Args:
        model: what to start from: a Hugging Face folder, a sentence-transformers folder, a Megatron checkpoint
            (.../checkpoints/step_NNNNNNN) or a hub id
        out: the folder to write
        data: .jsonl (.gz, .zst) or .parquet files, folders of them, or a data set's id on the Hugging Face Hub
            (newmindai/ms-marco-turkish-triplets)
        corpus: instead of --data, a corpus folder: two crops of one document of its train split are a pair
        columns: anchor, positive and any hard negatives, where their names are not among the usual ones
        split: of a data set on the hub
        guide: model of a guided loss, given like MODEL
        validation: held-out pairs, given like --data, to measure loss and retrieval on
        validation_split: of a data set on the hub
        evaluate_every: steps between two looks at the held-out pairs; 0: before and after
        checkpoint_every: steps between two checkpoints; 0: only on a signal
        tensorboard: folder for TensorBoard's events
        workers: processes that tokenize beside the training; 0: the training itself
        cache: where Megatron checkpoints are exported to; OUT/../exports unless given
        device: auto, cpu or cuda
        settings: the recipe
    """
    texts = open_data(data, corpus, columns, split)
    held_out = read_pairs(validation, columns, validation_split) if validation else None
    if evaluate_every and held_out is None:
        raise UserError("--evaluate-every needs --validation: name held-out pairs")

    def train() -> None:
        train_contrastive(
            model,
            out,
            texts,
            settings,
            guide=guide,
            validation=held_out,
            evaluate_every=evaluate_every,
            checkpoint_every=checkpoint_every,
            tensorboard=tensorboard,
            workers=workers,
            cache=cache,
            device=device,
        )

    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) > 0:
        train()
        return
    reads = [model, *(str(corpus),) * (corpus is not None), *data, *validation, *((guide,) if guide else ())]
    with step("contrastive training", reads, writes=[out]) as screen:
        describe(screen, texts)
        train()
        summarise(screen, out)


def open_data(data: Sequence[str], corpus: Path | None, columns: Sequence[str], split: str) -> PairSet | list[Document]:
    """Pairs, or the documents to crop. Raises `UserError` unless exactly one of the two sources is named."""
    if bool(data) == (corpus is not None):
        raise UserError("give either --data (pairs or triplets) or --corpus (crops of its documents)")
    if corpus is None:
        return read_pairs(data, columns, split)
    if columns:
        raise UserError("--columns is for --data: documents have no columns to choose from")
    return read_split(corpus, "train")


def describe(screen: Console, texts: PairSet | list[Document]) -> None:
    """One line on the data."""
    if not isinstance(texts, PairSet):
        screen.print(f"data    {len(texts):,} documents to crop", markup=False)
        return
    dropped = f"; {texts.dropped:,} with an empty text left out" if texts.dropped else ""
    screen.print(f"data    {len(texts):,} rows of {', '.join(texts.columns)}{dropped}", markup=False)


def summarise(screen: Console, out: Path) -> None:
    """What the training did, from its record."""
    import json

    record = json.loads((out / TRAINING_RECORD).read_text(encoding="utf-8"))
    losses, speed, model = record["result"]["losses"], record["speed"], record["model"]
    screen.print(
        f"model   {model['dimensions']} dimensions, {model['pooling']} pooling, {model['max_seq_length']:,} tokens\n"
        f"loss    {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses):,} steps\n"
        f"speed   {speed['tokens_per_second']:,.0f} tokens/s, {speed['padding_share']:.0%} of the batches padding",
        markup=False,
    )
    for score in record["validation"]:
        screen.print(
            f"held out, step {score['step']}: loss {score['loss']:.3f}, recall@10 {score['recall_10']:.3f}, nDCG@10 "
            f"{score['ndcg_10']:.3f}",
            markup=False,
        )


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem post-train contrastive`."""
    try:
        parse_and_call(contrastive, argv, prog=PROG)
    except SystemExit as stopped:
        if isinstance(stopped.code, int) and stopped.code > 128:
            console().print("stopped and saved: the same command goes on from here", markup=False)
        raise
    return 0
