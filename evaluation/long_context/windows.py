"""Windows of real long documents, measured in a model's own tokens: runs of whole sentences, never across documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from evaluation.choice import hash_order
from preprocessing.corpus.document import Document
from preprocessing.turkish import sentence_spans

MOST_WORDS = 8  # of a unit: longer sentences are cut, so that a window can be filled closely and cut into many pieces
FILLED = 0.85  # of the tokens wanted: the least that a window has
BLOCK = re.compile(r"\S+\s*")

Lengths = Callable[[list[str]], list[int]]  # texts -> their tokens, special ones and prompt included


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, or a part of a long one, with the white space behind it; `tokens` without special ones.

    `first`: a sentence begins here.
    """

    text: str
    tokens: int
    first: bool


@dataclass(frozen=True, slots=True)
class Window:
    """A run of units of the document `key`."""

    key: str
    units: tuple[Unit, ...]

    @property
    def tokens(self) -> int:
        """Of all units: what the whole has, but for a few where they meet."""
        return sum(unit.tokens for unit in self.units)

    @property
    def text(self) -> str:
        """As it stands in the document."""
        return "".join(unit.text for unit in self.units)


def split_units(text: str) -> list[tuple[str, bool]]:
    """The text in units, and whether a sentence begins with each; joined they are the text."""
    starts = [start for start, _ in sentence_spans(text)]
    if not starts:
        return []
    starts[0] = 0
    found = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        words = [match.end() for match in BLOCK.finditer(text, start, end)]
        cuts = [start, *words[MOST_WORDS - 1 : -1 : MOST_WORDS], end]
        found += [(text[low:high], low == start) for low, high in pairwise(cuts)]
    return found


class Library:
    """The long documents, each cut into units once and measured with one model's tokenizer."""

    def __init__(self, documents: Sequence[Document], lengths: Lengths, seed: int) -> None:
        """`lengths` counts a text's tokens as the model reads them."""
        self.documents = sorted(documents, key=lambda document: hash_order(seed, document.id))
        self.lengths = lengths
        self.overhead = lengths([""])[0]
        self.cut: dict[str, tuple[Unit, ...]] = {}

    def units(self, document: Document) -> tuple[Unit, ...]:
        """The document's units with their tokens."""
        if document.id not in self.cut:
            texts = split_units(document.text)
            counts = self.lengths([text.strip() for text, _ in texts]) if texts else []
            pairs = zip(texts, counts, strict=True)
            self.cut[document.id] = tuple(Unit(text, count - self.overhead, first) for (text, first), count in pairs)
        return self.cut[document.id]

    def windows(self, length: int, most: int, reserve: int = 0) -> list[Window]:
        """At most `most` windows of `length` tokens with the overhead and `reserve` tokens, documents in turn.

        A window has at least 85% of what it may have. No two share text.
        """
        room = length - self.overhead - reserve
        if room < 1:
            return []
        # a document has no more tokens than bytes and special tokens: the short ones need not be measured
        able = [document for document in self.documents if len(document.text.encode()) >= FILLED * room]
        queues = [list(_runs(document.id, self.units(document), room)) for document in able]
        found: list[Window] = []
        for turn in range(max(map(len, queues), default=0)):
            found += [queue[turn] for queue in queues if turn < len(queue)]
            if len(found) >= most:
                break
        return found[:most]


def _runs(key: str, units: Sequence[Unit], room: int) -> Iterator[Window]:
    """Consecutive windows of `room` tokens at most, the first from the document's beginning."""
    run: list[Unit] = []
    tokens = 0
    for unit in units:
        if run and tokens + unit.tokens > room:
            if tokens >= FILLED * room:
                yield Window(key, tuple(run))
            run, tokens = [], 0
        run.append(unit)
        tokens += unit.tokens
    if FILLED * room <= tokens <= room:
        yield Window(key, tuple(run))
