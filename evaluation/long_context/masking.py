"""A masked language model by the place of the token: accuracy and loss along the sequence, and what a long context adds.

The same tokens of the same documents are hidden at every length. So a token late in a long sequence is compared with itself in
a short one: what differs is the place and the context, not the text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.choice import hash_order
from evaluation.fill_mask.questions import generator
from evaluation.fill_mask.scoring import Row, score_rows
from evaluation.fill_mask.summary import rate
from evaluation.fill_mask.tokens import Ints, encode
from evaluation.long_context.results import Bucket, MaskingLength
from evaluation.results import Record
from preprocessing.corpus.document import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIRST_EDGE = 64  # tokens: buckets are [0, 64), [64, 128), [128, 256), ...


@dataclass(frozen=True, slots=True)
class Stretch:
    """The beginning of a document in tokens: `content` `[n]` without special ones, `hidden`: places that are asked for."""

    key: str
    content: Ints
    hidden: Ints


@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens around every sequence, and what hides a token."""

    before: Ints
    after: Ints
    mask_id: int
    pad_id: int

    @property
    def size(self) -> int:
        """Tokens that are no content."""
        return len(self.before) + len(self.after)


class TokenScores(Record):
    """Of every hidden token of all stretches, in order: loss in nats, whether it was right, its place, its window."""

    nll: list[float]
    right: list[float]
    place: list[int]
    window: list[int]
    seconds: float


def frame_of(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """What the tokenizer puts around a text."""
    (sample,) = encode(tokenizer, ["Anayasa"])
    inside = np.flatnonzero(sample.with_text)
    return Frame(
        sample.ids[: inside[0]], sample.ids[inside[-1] + 1 :], int(tokenizer.mask_token_id), tokenizer.pad_token_id or 0
    )


def choose_stretches(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], longest: int, most: int, probability: float, seed: int
) -> list[Stretch]:
    """Beginnings of documents that hold whole windows of `longest` tokens, `most` windows in all, by hash.

    Every stretch is a multiple of a window's content. Empty where no document is long enough.
    """
    room = longest - frame_of(tokenizer).size
    special = np.array(sorted(tokenizer.all_special_ids), dtype=np.int64)
    able = [document for document in documents if len(document.text.encode()) >= room]  # a token is a byte at least
    left, found = most, []
    for document in sorted(able, key=lambda document: hash_order(seed, document.id)):
        ids = tokenizer(document.text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        windows = min(left, len(ids) // room)
        if windows:
            content = np.array(ids[: windows * room], dtype=np.int64)
            askable = np.flatnonzero(~np.isin(content, special))
            count = max(1, round(probability * len(askable)))
            hidden = np.sort(generator(seed, f"long:{document.id}").permutation(askable)[:count])
            found.append(Stretch(document.id, content, hidden))
            left -= windows
    return found


def score_length(model: Any, frame: Frame, stretches: Sequence[Stretch], length: int, batch_tokens: int) -> TokenScores:
    """All hidden tokens in windows of `length` tokens, side by side from each stretch's beginning; the last may be shorter."""
    started = time.perf_counter()
    room = length - frame.size
    rows, places = [], []
    for stretch in stretches:
        masked = stretch.content.copy()
        masked[stretch.hidden] = frame.mask_id
        for start in range(0, len(masked), room):
            inside = stretch.hidden[(stretch.hidden >= start) & (stretch.hidden < start + room)]
            place = inside - start + len(frame.before)
            ids = np.concatenate([frame.before, masked[start : start + room], frame.after])
            rows.append(Row(ids, place, stretch.content[inside]))
            places.append(place)
    answers = score_rows(model, rows, frame.pad_id, batch_tokens, f"masks in {length:,} tokens")
    return TokenScores(
        nll=[-float(value) for found in answers for value in found.label],
        right=[float(ok) for found in answers for ok in (found.best >= found.label[:, None]).sum(axis=1) <= 1],
        place=[int(value) for part in places for value in part],
        window=[number for number, part in enumerate(places) for _ in part],
        seconds=time.perf_counter() - started,
    )


def edges(length: int) -> list[int]:
    """0, 64, 128, 256, ... up to `length`."""
    found = [0]
    edge = FIRST_EDGE
    while edge < length:
        found.append(edge)
        edge *= 2
    return [*found, length]


def curve(scores: TokenScores, short: TokenScores | None, length: int, seed: int) -> MaskingLength:
    """Accuracy and loss by place; `short`: the same tokens in the shortest windows. Intervals redraw windows."""
    place, window = np.array(scores.place), np.array(scores.window)
    nll, right = np.array(scores.nll), np.array(scores.right)
    gain = None if short is None else nll - np.array(short.nll)

    def mean(values: np.ndarray, chosen: np.ndarray) -> Any:
        count = int(window.max()) + 1
        sums = np.bincount(window[chosen], values[chosen], minlength=count)
        return rate(sums, np.bincount(window[chosen], minlength=count).astype(np.float64), seed)

    buckets = []
    limits = edges(length)
    for start, end in pairwise(limits):
        chosen = (place >= start) & (place < end)
        if chosen.any():
            buckets.append(
                Bucket(
                    start=start,
                    end=end,
                    tokens=int(chosen.sum()),
                    accuracy=mean(right, chosen),
                    nll=mean(nll, chosen),
                    against_short=None if gain is None else mean(gain, chosen),
                )
            )
    everything = np.ones(len(place), dtype=bool)
    return MaskingLength(
        length=length,
        windows=int(window.max()) + 1,
        tokens=len(place),
        accuracy=mean(right, everything),
        nll=mean(nll, everything),
        against_short=None if gain is None else mean(gain, everything),
        buckets=buckets,
        seconds=scores.seconds,
    )
