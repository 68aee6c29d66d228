"""Close pairs of good text by length: how many of them share wording, which shows from which length on vectors mislead.

Part of `mecellem prepare calibrate`. Documents are taken as they are, so many of each length, and all pairs of one class of
lengths are compared; what is joined or wrapped for the filters plays no part here.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.jsonl import read_records
from preprocessing.turkish import words

if TYPE_CHECKING:
    from preprocessing.stages.semantic_dedup import SemanticDedupSettings

LENGTHS = (1, 11, 21, 51, 101, 301, 1001)  # words with which a class begins
THRESHOLDS = (0.75, 0.85, 0.95)
MOST = 4_000  # documents of one class
_ROWS = 1_000  # of similarities at a time


@dataclass(frozen=True)
class LengthClass:
    """Documents of one length, and by threshold how many pairs are as close, and how many of these share wording.

    `gone`: documents that go at the settings' threshold; `gone_by_vectors`: that would go without `min_overlap`.
    """

    words: str
    documents: int
    pairs: dict[str, int]
    sharing: dict[str, int]
    gone: int
    gone_by_vectors: int


def measure_pairs(paths: Iterable[Path], settings: SemanticDedupSettings, seed: int) -> list[LengthClass]:
    """What is found in each class of lengths that has two documents; at most `MOST` of each, chosen by `seed`."""
    last = [f"{first} to {following - 1}" for first, following in pairwise(LENGTHS)]
    names = [*last, f"{LENGTHS[-1]} and more"]
    chosen = _choose(paths, seed)
    return [_measure(name, texts, settings) for name, texts in zip(names, chosen, strict=True) if len(texts) > 1]


def _choose(paths: Iterable[Path], seed: int) -> list[list[str]]:
    """Texts of each class, an even sample of all files (reservoir sampling)."""
    choose = random.Random(seed)
    chosen: list[list[str]] = [[] for _ in LENGTHS]
    seen = [0] * len(LENGTHS)
    for path in paths:
        for record in read_records(path):
            length = len(words(record.text))
            kind = sum(length >= first for first in LENGTHS) - 1
            if kind < 0:
                continue
            seen[kind] += 1
            if len(chosen[kind]) < MOST:
                chosen[kind].append(record.text)
            elif (place := choose.randrange(seen[kind])) < MOST:
                chosen[kind][place] = record.text
    return chosen


def _measure(name: str, texts: list[str], settings: SemanticDedupSettings) -> LengthClass:
    from preprocessing.stages.overlap import Overlap
    from preprocessing.stages.semantic_dedup import beginning, encoder, unit
    from preprocessing.stages.vector_cells import decide, one_thread

    with one_thread():
        vectors = unit(encoder(settings.model)([beginning(text, settings.characters) for text in texts]))
        pairs = _pairs(vectors, min(*THRESHOLDS, settings.threshold))
    least = settings.min_overlap or type(settings).model_fields["min_overlap"].default  # also where the check is off
    shares = Overlap(least, 0, settings.run_words)
    sketches = shares.sketches(texts)
    sharing = shares.agree(sketches, sketches, pairs["later"], pairs["earlier"])
    sketches = settings.overlap.sketches(texts)
    agree = settings.overlap.agree(sketches, sketches, pairs["later"], pairs["earlier"])
    close = pairs["similarity"] >= settings.threshold
    reached = {f"{threshold:g}": pairs["similarity"] >= threshold for threshold in THRESHOLDS}
    return LengthClass(
        words=name,
        documents=len(texts),
        pairs={threshold: int(which.sum()) for threshold, which in reached.items()},
        sharing={threshold: int((which & sharing).sum()) for threshold, which in reached.items()},
        gone=len(decide(pairs[close & agree], len(texts)).later),
        gone_by_vectors=len(decide(pairs[close], len(texts)).later),
    )


def _pairs(vectors: np.ndarray, threshold: float) -> np.ndarray:
    """`PAIR`s of documents that are as close as `threshold`."""
    from preprocessing.stages.vector_cells import PAIR

    found = [np.empty(0, PAIR)]
    for first in range(0, len(vectors), _ROWS):
        similarities = vectors[first : first + _ROWS] @ vectors.T
        later, earlier = np.nonzero(similarities >= threshold)
        before = earlier < later + first
        pairs = np.empty(int(before.sum()), PAIR)
        pairs["later"], pairs["earlier"] = later[before] + first, earlier[before]
        pairs["similarity"] = similarities[later[before], earlier[before]]
        found.append(pairs)
    return np.concatenate(found)


def pair_rows(classes: Iterable[LengthClass]) -> list[tuple[object, ...]]:
    """The classes as rows of a table: words, documents, for each threshold pairs and their share that shares wording, gone."""
    return [
        (
            each.words,
            each.documents,
            *(_share(each, f"{threshold:g}") for threshold in THRESHOLDS),
            each.gone_by_vectors,
            each.gone,
        )
        for each in classes
    ]


def _share(found: LengthClass, threshold: str) -> str:
    pairs = found.pairs[threshold]
    return f"{pairs:,}, {found.sharing[threshold] / pairs:.0%} sharing" if pairs else "0"


PAIR_COLUMNS = ("words", "documents", *(f"pairs of {threshold:g}" for threshold in THRESHOLDS), "go by vectors alone", "go")
