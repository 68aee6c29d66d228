"""Where a run is in its data: explicit state of a few numbers per source, and the streams that it points into.

A source is one endless stream of tokens: its documents end to end, epoch after epoch, each epoch in an order of its own.
A sequence takes the next `seq_len` tokens of one stream, at an epoch's end it runs on into the next epoch. So nothing is
dropped or padded, no document comes again before its epoch ends, and a change of weights, of sequence length, of batch or
of the number of ranks goes on at the very next token. A corpus has one stream for the whole curriculum: it is known by
the SHA-256 of its `.bin`, whatever stage, name or folder it is in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from mecellem.manifest import CorpusManifest
from megatron_recipes.data.causal import Row
from megatron_recipes.data.corpus import Int64Array, TokenCorpus
from megatron_recipes.data.document_order import DocumentOrder

FORMAT = "mecellem.cursor/1"
BLOCK = 8192  # documents that are laid out at a time: many for each call of numpy, few enough for a core's cache


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamState(_State):
    """The next token of one source: `offset` tokens into the document at rank `document` of epoch `epoch`."""

    path: str  # the corpus's prefix, for people and for telling a corpus that was overwritten
    epoch: int = 0
    document: int = 0
    offset: int = 0
    tokens: int = 0  # taken since the curriculum's start


class FinishedStage(_State):
    """A stage that is over; `digest` is of what it consisted of."""

    name: str
    digest: str


class Cursor(_State):
    """The whole state of a run's data: JSON in every checkpoint, the same on all ranks and for any number of them."""

    format: str = FORMAT
    seed: int
    finished: tuple[FinishedStage, ...] = ()
    stage: str
    global_batch_tokens: int  # of the stage
    steps: int = 0  # optimizer steps done in the stage
    streams: dict[str, StreamState]  # by the corpus's hash


def identity(prefix: Path, manifest: CorpusManifest) -> str:
    """What a corpus is known by: the SHA-256 of its `.bin`, as its manifest has it."""
    return manifest.files[f"{prefix.name}.bin"].sha256


@dataclass(frozen=True, slots=True)
class _Layout:
    """Documents of the stream from one on: document i is the stream's `begins[i]` to `begins[i + 1]`."""

    first: int  # number of the first, epoch x documents + rank
    begins: Int64Array  # [d + 1] in tokens since the curriculum's start
    documents: Int64Array  # [d] which ones they are
    end: int  # the last of `begins`


class SourceStream:
    """The stream of one corpus. Places are counted in tokens since the curriculum's start."""

    def __init__(self, corpus: TokenCorpus, seed: int, state: StreamState | None = None) -> None:
        self.corpus, self.seed, self.identity = corpus, seed, identity(corpus.prefix, corpus.manifest)
        self.tokens = np.asarray(corpus.tokens)  # slices of a plain array cost a tenth of a memmap's
        lengths = np.diff(corpus.document_starts)
        # one to four bytes a document, since where documents are short, looking up their lengths is much of a step's work
        self._lengths = lengths.astype(np.min_scalar_type(lengths.max()))
        self.place = state.tokens if state else 0
        start = self.place - state.offset if state else 0
        number = state.epoch * corpus.documents + state.document if state else 0
        self._layout = _Layout(number, np.array([start], dtype=np.int64), np.empty(0, dtype=np.int64), start)
        self._order: tuple[int, DocumentOrder] | None = None

    def _order_of(self, epoch: int) -> DocumentOrder:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, DocumentOrder(self.seed, self.identity, epoch, self.corpus.documents)
        return self._order[1]

    def _laid_out(self, until: int) -> _Layout:
        """The layout, extended so that it holds the token at place `until`. What lies behind is forgotten only then."""
        layout = self._layout
        if until < layout.end:
            return layout
        number, end = layout.first + len(layout.documents), layout.end
        gone = int(layout.begins.searchsorted(self.place, side="right")) - 1
        begins, documents = [layout.begins[gone:]], [layout.documents[gone:]]
        while end <= until:
            epoch, rank = divmod(number, self.corpus.documents)
            chosen = self._order_of(epoch).documents(rank, min(BLOCK, self.corpus.documents - rank))
            ends = self._lengths.take(chosen).cumsum(dtype=np.int64)
            ends += end
            documents.append(chosen)
            begins.append(ends)
            end, number = int(ends[-1]), number + len(chosen)
        self._layout = _Layout(layout.first + gone, np.concatenate(begins), np.concatenate(documents), end)
        return self._layout

    def advance(self, tokens: int) -> None:
        """Take the next `tokens` tokens."""
        self.place += tokens
        self._laid_out(self.place)

    def row(self, ahead: int, length: int) -> Row:
        """The sequence of `length` tokens that begins `ahead` tokens from here; nothing is taken."""
        begin = self.place + ahead
        end = begin + length
        layout = self._laid_out(end)
        first = int(layout.begins.searchsorted(begin, side="right")) - 1
        last = int(layout.begins.searchsorted(end, side="right"))  # one beyond the document of the token that follows
        begins = layout.begins[first:last]
        shifts = self.corpus.document_starts[layout.documents[first:last]] - begins  # from the stream to the .bin
        edges = np.append(begins, end)
        edges[0] = begin
        kept = np.flatnonzero(edges[1:] > edges[:-1])  # documents without tokens leave no piece
        return Row(
            tokens=self.tokens,
            begins=edges[:-1][kept] + shifts[kept],
            ends=edges[1:][kept] + shifts[kept],
            following=end + int(shifts[-1]),
            continues=bool(begins[-1] < end),
        )

    def state(self) -> StreamState:
        """The next token's place as state."""
        layout = self._laid_out(self.place)
        inside = int(layout.begins.searchsorted(self.place, side="right")) - 1
        epoch, rank = divmod(layout.first + inside, self.corpus.documents)
        offset = self.place - int(layout.begins[inside])
        return StreamState(path=str(self.corpus.prefix), epoch=epoch, document=rank, offset=offset, tokens=self.place)
