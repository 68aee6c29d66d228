"""The needle test: does a question find the document that a fact was hidden in, by length and by depth?

After "Needle in a haystack" (Kamradt 2023) and its form for embeddings (Zhu et al. 2024, LongEmbed): each of n real documents
of one length holds another fact, all at one depth, and each fact's question has to be nearest to its own document. The
documents' own subjects say nothing about the facts, so chance is 1/n, and what is missing to 1 is what the vector has lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evaluation.encoders import Encoder
from evaluation.fill_mask.results import Rate
from evaluation.long_context.encoders import encode_whole, write_fitting
from evaluation.long_context.needles import Needle
from evaluation.long_context.results import NeedleCell, NeedleLength
from evaluation.long_context.windows import Unit, Window
from evaluation.perplexity.statistics import interval, ratio
from mecellem.console import progress_bar


def hide(needle: str, depth: float, units: Sequence[Unit]) -> str:
    """The units' text with the needle between two sentences, with about `depth` per cent of the tokens in front of it."""
    ends = np.cumsum([0, *(unit.tokens for unit in units)])
    able = np.array([0, *(number for number, unit in enumerate(units) if unit.first and number), len(units)])
    place = int(able[np.abs(ends[able] - depth / 100 * ends[-1]).argmin()])
    before, after = ("".join(unit.text for unit in part).strip() for part in (units[:place], units[place:]))
    return " ".join(part for part in (before, needle, after) if part)


def places(similarities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of each question its own document's place, 1: nearest, a tie lost. `similarities` `[n, n]`, own ones on the diagonal."""
    own = np.diag(similarities)
    return np.asarray((similarities >= own[:, None]).sum(axis=1), dtype=np.int64)


def margins(similarities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each question how much nearer its own document is than the others on average."""
    count = len(similarities)
    own = np.diag(similarities).astype(np.float64)
    return own - (similarities.sum(axis=1, dtype=np.float64) - own) / (count - 1)


def cell(length: int, depth: float, found: Sequence[NDArray[np.float32]], seed: int) -> NeedleCell:
    """One length and depth; `found` holds a round's similarities `[n, n]` each."""
    place = np.concatenate([places(part) for part in found])
    right, ones = (place == 1).astype(np.float64), np.ones(len(place))
    return NeedleCell(
        length=length,
        depth=depth,
        queries=len(place),
        candidates=len(found[0]),
        accuracy=Rate(value=float(right.mean()), interval=interval(ratio, (right.tolist(), ones.tolist()), seed)),
        mrr=float((1 / place).mean()),
        margin=float(np.concatenate([margins(part) for part in found]).mean()),
    )


def measure_length(
    encoder: Encoder,
    windows: Sequence[Window],
    rounds: Sequence[Sequence[Needle]],
    length: int,
    depths: Sequence[float],
    seed: int,
) -> NeedleLength:
    """All depths of one length: a window and a needle for each query, paired anew each round."""
    started = time.perf_counter()
    cells = []
    with progress_bar(transient=True) as bar:
        task = bar.add_task(f"needles in {length:,} tokens", total=len(depths) * len(rounds))
        for depth in depths:
            found = []
            for number, needles in enumerate(rounds):
                turned = [*windows[number:], *windows[:number]]
                write = [partial(hide, needle.fact, depth) for needle in needles]
                texts = write_fitting(encoder, [window.units for window in turned], write, length)
                queries = encode_whole(encoder, [needle.query for needle in needles], "query")
                found.append(queries @ encode_whole(encoder, texts, "document").T)
                bar.advance(task)
            cells.append(cell(length, depth, found, seed))
    return NeedleLength(cells=cells, seconds=time.perf_counter() - started)
