"""How much of each part of a document is in its vector: the similarity of the whole to its own pieces, by their place.

A document's beginning says what it is about, so a high similarity there is not yet a bias. The document is therefore read in as
many orders as it has pieces, each begun one piece further on: every piece stands at every place once, and the mean over orders
belongs to the place alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from evaluation.encoders import Encoder
from evaluation.fill_mask.results import Rate
from evaluation.long_context.encoders import encode_whole, write_fitting
from evaluation.long_context.results import PositionCurve
from evaluation.long_context.windows import Unit, Window
from evaluation.perplexity.statistics import interval, ratio
from mecellem.console import progress_bar


def cut_evenly(units: Sequence[Unit], pieces: int) -> list[list[Unit]]:
    """The units in `pieces` consecutive parts of about as many tokens each; none is empty. Needs as many units."""
    assert len(units) >= pieces
    ends = np.cumsum([unit.tokens for unit in units])
    found, start = [], 0
    for number in range(1, pieces + 1):
        wanted = int(np.abs(ends - ends[-1] * number / pieces).argmin()) + 1
        stop = min(max(wanted, start + 1), len(units) - (pieces - number))
        found.append(list(units[start:stop]))
        start = stop
    return found


def joined(units: Sequence[Unit]) -> str:
    """The units' text."""
    return "".join(unit.text for unit in units).strip()


def similarities(encoder: Encoder, window: Window, pieces: int, length: int) -> np.ndarray:
    """Cosine of the whole and its pieces `[orders, places]`, by the place that the piece has in that order."""
    parts = cut_evenly(window.units, pieces)
    orders = [[(number + turn) % pieces for number in range(pieces)] for turn in range(pieces)]
    wholes = [[unit for number in order for unit in _spaced(parts[number])] for order in orders]
    texts = write_fitting(encoder, wholes, [joined] * pieces, length)
    whole = encode_whole(encoder, texts, "document")
    single = encode_whole(encoder, [joined(part) for part in parts], "document")
    return np.array([single[order] @ vector for order, vector in zip(orders, whole, strict=True)], dtype=np.float64)


def _spaced(units: Sequence[Unit]) -> list[Unit]:
    """The units with white space behind the last one, so that it does not run into the next piece."""
    last = units[-1]
    text = last.text if last.text[-1:].isspace() else f"{last.text} "
    return [*units[:-1], Unit(text, last.tokens, last.first)]


def measure_length(encoder: Encoder, windows: Sequence[Window], length: int, pieces: int, seed: int) -> PositionCurve:
    """The curve over the places of documents of one length."""
    started = time.perf_counter()
    found = []
    with progress_bar(transient=True) as bar:
        task = bar.add_task(f"places in {length:,} tokens", total=len(windows))
        for window in windows:
            found.append(similarities(encoder, window, pieces, length).mean(axis=0))
            bar.advance(task)
    return curve(np.array(found), length, seed, time.perf_counter() - started)


def curve(table: np.ndarray, length: int, seed: int, seconds: float) -> PositionCurve:
    """`table` `[documents, pieces]`: similarities averaged over orders; intervals redraw documents."""
    ones = [1.0] * len(table)
    relative = table - table.mean(axis=1, keepdims=True)
    quarter = max(1, table.shape[1] // 4)
    lead = table[:, :quarter].mean(axis=1) - table[:, -quarter:].mean(axis=1)
    return PositionCurve(
        length=length,
        documents=len(table),
        similarity=table.mean(axis=0).tolist(),
        relative=[
            Rate(value=float(column.mean()), interval=interval(ratio, (column.tolist(), ones), seed)) for column in relative.T
        ],
        first_minus_last=Rate(value=float(lead.mean()), interval=interval(ratio, (lead.tolist(), ones), seed)),
        seconds=seconds,
    )
