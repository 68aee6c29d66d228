"""Curricula over corpora in memory, every token of which is told apart from every other."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
from tiny_corpora import manifest_of

from mecellem.manifest import FileEntry
from megatron_recipes.data.corpus import TokenCorpus
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.data.curriculum_data import CurriculumData

FIRST_ID = 1_000_000  # between the token ids of two corpora


def corpus(name, lengths, number=0, content=""):
    """Documents of `lengths` tokens with the ids number x 10^6, + 1, + 2 ...; `content` makes it another corpus."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = np.arange(starts[-1], dtype=np.int32) + number * FIRST_ID
    documents = [flat[a:b] for a, b in itertools.pairwise(starts)]
    digest = hashlib.sha256(f"{name} {list(lengths)} {content}".encode()).hexdigest()
    files = {f"{Path(name).name}.bin": FileEntry(bytes=4 * len(flat), sha256=digest)}
    return TokenCorpus(Path(name), flat, starts, manifest_of(documents, "int32", 10**8, files=files))


def corpora(**lengths):
    """`corpora(web=[3, 5], laws=[7])` by path."""
    return {Path(name): corpus(name, of, number) for number, (name, of) in enumerate(lengths.items())}


def stage(name="one", tokens=640, seq_len=8, batch=64, lr="1.0e-3", attention="document", epochs=1000, **weights):
    """One stage as YAML, with a source for each keyword."""
    sources = "".join(f"\n      - {{path: {path}, weight: {weight}, max_epochs: {epochs}}}" for path, weight in weights.items())
    return (
        f"\n  - name: {name}\n    tokens: {tokens}\n    seq_len: {seq_len}\n    global_batch_tokens: {batch}\n"
        f"    lr: {lr}\n    attention: {attention}\n    sources:{sources}"
    )


def curriculum(folder, *stages):
    path = folder / "curriculum.yaml"
    path.write_text("stages:" + "".join(stages), encoding="utf-8")
    return Curriculum.read(path)


def data(plan, found, seed=1, cursor=None):
    feed = CurriculumData(plan, found, seed)
    if cursor is None:
        feed.check_supply()
    else:
        feed.restore(cursor)
    return feed


def rows(batches):
    """(input_ids, labels, positions) of each row, as tuples, in order."""
    return [
        (tuple(ids), tuple(labels), tuple(positions))
        for batch in batches
        for ids, labels, positions in zip(
            batch.input_ids.tolist(), batch.labels.tolist(), batch.positions.tolist(), strict=True
        )
    ]


def steps(feed, count, ranks=1, micro=1):
    """The rows of each of the next `count` steps, in the order of the global batch, whatever the layout.

    `feed` advances once a step: ranks of a real run have a copy each, here every rank but the last gets one.
    """
    result = []
    for _ in range(count):
        before = feed.cursor
        dealt = []
        for rank in range(ranks):
            copy = feed if rank == ranks - 1 else data(feed.curriculum, feed_corpora(feed), feed.seed, before)
            dealt.append([rows([batch]) for batch in copy.next_step(rank, ranks, micro)])
        result.append([row for turn in zip(*dealt, strict=True) for batch in turn for row in batch])
    return result


def feed_corpora(feed):
    return {stream.corpus.prefix: stream.corpus for stream in feed._streams.values()}
