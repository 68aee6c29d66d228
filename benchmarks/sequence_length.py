"""What shortening texts costs: one post-training at several sequence lengths, on the long documents of Atatürk's speeches.

    python benchmarks/sequence_length.py

multilingual-e5-small is post-trained on (title, speech) pairs of the sample corpus's train split, with the same pairs,
batches and steps at every length: only how many tokens of a speech are read differs. Each model, and the untrained one, then
ranks the speeches of the validation and test splits for their titles, again at every length, so that what was lost in
training can be told from what is lost in use. BM25 reads whole speeches. Attention weights are not dropped in training: on
CPUs PyTorch has no fused attention with dropout, and 512 tokens took several times as long.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from common import CACHE, ROOT, header, sample_text
from real_models import e5_small_folder

from evaluation.bootstrap import mean_interval
from evaluation.encoders import Bm25, EncoderSettings, open_encoder
from evaluation.tasks.pools import speeches
from mecellem.console import human_time
from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from post_training.contrastive import TRAINING_RECORD, ContrastiveSettings, train_contrastive
from post_training.pairs import PairSet, pair_set
from preprocessing.corpus.read_split import read_split

SOURCE = "ataturk"
DEPTH = 10
LONG_WORDS = 300  # about 512 tokens of this tokenizer: what longer speeches say further on no model here reads

Scores = dict[str, float]  # nDCG@10 of every query


def without_attention_dropout(model: Path, folder: Path) -> Path:
    """The same model in a new folder, whose config has no dropout of attention weights."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    changes = {name: 0.0 for name in ("attention_probs_dropout_prob", "attention_dropout") if name in config}
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    return folder


def titled(corpus: Path, splits: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Titles and speeches by id; a speech without a title of three words or more is only a candidate."""
    documents = [item for split in splits for item in read_split(corpus, split) if item.source == SOURCE]
    return speeches(documents)


def training_pairs(corpus: Path) -> PairSet:
    """(title, speech) of the train split."""
    queries, documents = titled(corpus, ["train"])
    return pair_set([(title, documents[key]) for key, title in queries.items()], "titles and speeches")


def ndcg(ranked: Mapping[str, Sequence[str]]) -> Scores:
    """nDCG@10 of every query, whose one right document has its own id: 1 / log2(1 + rank)."""
    places = {query: (list(found[:DEPTH]).index(query) + 1 if query in found[:DEPTH] else 0) for query, found in ranked.items()}
    return {query: 1 / np.log2(1 + place) if place else 0.0 for query, place in places.items()}


def score_dense(folder: Path, length: int, queries: Mapping[str, str], documents: Mapping[str, str]) -> Scores:
    """A model that reads `length` tokens of every text, its prompt and special tokens included."""
    encoder = open_encoder(str(folder), settings=EncoderSettings(max_seq_length=length))
    cosines = encoder.encode(list(queries.values()), "query") @ encoder.encode(list(documents.values()), "document").T
    ids = list(documents)
    order = np.argsort(-cosines, axis=1, kind="stable")
    return ndcg({query: [ids[column] for column in row] for query, row in zip(queries, order, strict=True)})


def score_bm25(queries: Mapping[str, str], documents: Mapping[str, str]) -> Scores:
    """BM25 on whole texts."""
    found = Bm25().rank(queries, documents)
    return ndcg({query: sorted(scores, key=lambda key: -scores[key]) for query, scores in found.items()})


def train(model: Path, pairs: PairSet, length: int, steps: int, batch: int, out: Path) -> float:
    """Post-train at one length; seconds that it took. The folder keeps the model's own length."""
    settings = ContrastiveSettings(
        steps=steps, batch_size=batch, train_seq_length=length, lr=2e-5, temperature=0.01, group_by_length=False
    )
    shutil.rmtree(out, ignore_errors=True)
    return train_contrastive(model, out, pairs, settings, title=f"{length} tokens").seconds


def cell(scores: Scores, of: Sequence[str]) -> str:
    """Mean nDCG@10 of some queries with its 95% interval."""
    values = [scores[query] for query in of]
    low, high = mean_interval([values])
    return f"{statistics.mean(values):.3f} ({low:.3f} to {high:.3f})"


def change(scores: Scores, than: Scores, of: Sequence[str]) -> str:
    """Paired difference of means with its 95% interval."""
    values = [scores[query] - than[query] for query in of]
    low, high = mean_interval([values])
    return f"{statistics.mean(values):+.3f} ({low:+.3f} to {high:+.3f})"


def table(results: Mapping[tuple[str, int], Scores], bm25: Scores, of: Sequence[str], lengths: Sequence[int]) -> list[str]:
    """Rows: how the model was trained; columns: how many tokens it reads."""
    rows = [f"| trained on | {' | '.join(f'reads {length}' for length in lengths)} |", f"|---|{'---|' * len(lengths)}"]
    for name in dict.fromkeys(trained for trained, _ in results):
        rows.append(f"| {name} | {' | '.join(cell(results[name, length], of) for length in lengths)} |")
    return [*rows, f"| BM25, whole texts | {cell(bm25, of)} |{' |' * (len(lengths) - 1)}"]


def report(
    results: Mapping[tuple[str, int], Scores],
    bm25: Scores,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    lengths: Sequence[int],
    notes: Sequence[str],
) -> list[str]:
    """The Markdown file's lines."""
    long = [query for query in queries if len(documents[query].split()) > LONG_WORDS]
    everywhere, longest = list(queries), max(lengths)
    lines = ["# What shortening texts costs", "", header(("sentence-transformers", "transformers", "torch", "bm25s")), ""]
    lines += [*notes, f"Title to speech: {len(queries)} queries, {len(documents)} candidates. nDCG@10 with 95% intervals.", ""]
    lines += [f"All {len(everywhere)} queries:", "", *table(results, bm25, everywhere, lengths), ""]
    if len(long) > 1:
        lines += [f"The {len(long)} whose speech has more than {LONG_WORDS} words:", ""]
        lines += [*table(results, bm25, long, lengths), ""]
    best = results[str(longest), longest]
    lines += [f"Trained on and reading {longest} tokens, less shorter ones on the same queries:", ""]
    for length in sorted(lengths)[:-1]:
        lines += [
            f"- trained on {length}, reads {length}: {change(best, results[str(length), length], everywhere)}",
            f"- trained on {length}, reads {longest}: {change(best, results[str(length), longest], everywhere)}",
        ]
    return [*lines, ""]


def sequence_length(
    lengths: tuple[int, ...] = (32, 128, 512),
    steps: int = 24,
    batch: int = 16,
    model: Path | None = None,
    corpus: Path | None = None,
    out: Path = ROOT / "benchmarks" / "results" / "sequence_length.md",
) -> None:
    """Post-train one model at several lengths and score each at every length.

    Args:
        lengths: tokens of a text
        steps: optimiser steps of each training
        batch: pairs in a batch
        model: instead of multilingual-e5-small, a folder to start from
        corpus: instead of the sample, a corpus folder that has the speeches
        out: Markdown file for the results
    """
    import torch

    if len(set(lengths)) < 2 or min(lengths) < 4:
        raise UserError("--lengths needs at least two different lengths of 4 tokens or more")
    corpus = corpus or sample_text()
    original = model or e5_small_folder(CACHE)
    start = without_attention_dropout(original, CACHE / "sequence_length" / "start")
    pairs = training_pairs(corpus)
    queries, documents = titled(corpus, ["validation", "test"])
    results = {("nothing more", length): score_dense(start, length, queries, documents) for length in lengths}
    notes = [
        f"{original.name}, {len(pairs)} pairs to train on, {steps} steps of {batch} pairs, {torch.get_num_threads()} threads.",
        "",
    ]
    for length in lengths:
        folder = CACHE / "sequence_length" / str(length)
        seconds = train(start, pairs, length, steps, batch, folder)
        speed = json.loads((folder / TRAINING_RECORD).read_text(encoding="utf-8"))["speed"]
        notes.append(f"- trained on {length} tokens: {human_time(seconds)}, {speed['tokens_per_second']:,.0f} tokens/s")
        for reads in lengths:
            results[str(length), reads] = score_dense(folder, reads, queries, documents)
        shutil.rmtree(folder)
    shutil.rmtree(start)
    bm25 = score_bm25(queries, documents)
    lines = report(results, bm25, queries, documents, lengths, [*notes, ""])
    with atomic_write(out) as handle:
        handle.write("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    parse_and_call(sequence_length, sys.argv[1:], "python benchmarks/sequence_length.py")
