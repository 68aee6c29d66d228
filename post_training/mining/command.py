"""`mecellem post-train mine`: hard negatives for pairs, as lines that a person can read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import tyro

from mecellem.console import step
from mecellem.flags import parse_and_call
from post_training.mining.mine import mine_negatives, report_path
from post_training.mining.settings import MiningSettings
from post_training.pairs import ANCHOR, NEGATIVE, POSITIVE, read_pairs
from preprocessing.corpus.read_split import read_split

EXAMPLES = 3
WIDTH = 100  # characters of a text that are shown


def mine(
    data: tyro.conf.Positional[tuple[str, ...]],
    model: str,
    out: Path,
    guide: str | None = None,
    corpus: Path | None = None,
    columns: tuple[str, ...] = (),
    split: str = "train",
    cache: Path | None = None,
    device: str = "auto",
    settings: MiningSettings = MiningSettings(),  # noqa: B008 (frozen)
) -> None:
    """Find texts that look like answers to a query and are none, for `mecellem post-train contrastive`.

    Every text of DATA that is a positive, and every document of CORPUS, is a candidate for every query. Those that are as
    near to the query as its own positive probably answer it too; they are left out.

    Args:
        data: pairs: .jsonl (.gz, .zst) or .parquet files, folders of them, or a data set's id on the Hugging Face Hub
        model: what finds candidates: a Hugging Face folder (mean pooling), a sentence-transformers folder, a Megatron
            checkpoint or a hub id
        out: the .jsonl file to write: anchor, positive, negative, positive_score, negative_score
        guide: a better model, given like MODEL, whose scores decide which candidates are too near
        corpus: a corpus folder, whose train split's documents are candidates as well
        columns: anchor and positive, where their names are not among the usual ones
        split: of a data set on the hub
        cache: where Megatron checkpoints are exported to; OUT/../exports unless given
        device: auto, cpu or cuda
        settings: the recipe
    """
    pairs = read_pairs(data, columns, split)
    candidates = [document.text for document in read_split(corpus, "train")] if corpus is not None else []
    reads = [*data, model, *((guide,) if guide else ()), *((corpus,) if corpus else ())]
    with step("hard negatives", reads, writes=[out, report_path(out)]) as screen:
        screen.print(f"data    {len(pairs):,} pairs of {', '.join(pairs.columns[:2])}; {len(candidates):,} candidates more")
        found = mine_negatives(pairs, model, out, settings, guide=guide, candidates=candidates, cache=cache, device=device)
        screen.print(
            f"found   {found.lines:,} triplets; {found.queries_without:,} of {found.queries:,} queries have none\n"
            f"scores  {found.positive_score:.3f} of positives, {found.negative_score:.3f} of negatives, on average",
            markup=False,
        )
        with open(out, encoding="utf-8") as handle:
            for line in islice(handle, EXAMPLES):
                row = json.loads(line)
                for name in (ANCHOR, POSITIVE, NEGATIVE):
                    screen.print(f"  {name:<9} {' '.join(row[name].split())[:WIDTH]}", markup=False)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem post-train mine`."""
    parse_and_call(mine, argv, prog="mecellem post-train mine")
    return 0
