"""Cut a corpus into windows of one length, every token once an epoch, and keep track of where documents begin.

A stored document `tokens [SEP]` is read as `[CLS] tokens [SEP]`. An epoch's documents, shuffled, form one long stream;
window w is its tokens w x S to (w + 1) x S. A document that straddles windows goes on in the next one without a new
[CLS], as in Megatron-LM's GPT dataset, so nothing is padded and no token is dropped but the remainder shorter than a
window, which differs from epoch to epoch because documents are shuffled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mecellem.errors import UserError
from megatron_recipes.data.corpus import Int64Array, SpecialTokens, TokenCorpus
from megatron_recipes.data.random_streams import Stream, permutation


class PackedCorpus:
    """Windows of `sequence_length` tokens over a `TokenCorpus`.

    With `shuffle` (training) documents and windows have an order of their own in each epoch. Without it (validation)
    both keep the corpus's order and the last window is filled up with [PAD], so that every token is seen.
    Memory: three int64 per document and one per window, for one epoch at a time.
    """

    def __init__(self, corpus: TokenCorpus, special: SpecialTokens, sequence_length: int, seed: int, shuffle: bool) -> None:
        """Raises `UserError` when training on a corpus that is shorter than one window."""
        if corpus.manifest.tokenizer.eod_id != special.sep:
            raise UserError(
                f"{corpus.prefix}: documents end with id {corpus.manifest.tokenizer.eod_id} but [SEP] is "
                f"{special.sep}: tokenize the corpus again with [SEP] as end of document"
            )
        self.corpus, self.special, self.sequence_length = corpus, special, sequence_length
        self.seed, self.shuffle = seed, shuffle
        self.tokens_per_epoch = int(corpus.document_starts[-1]) + corpus.documents  # each document gets its [CLS]
        self.windows = self.tokens_per_epoch // sequence_length
        if shuffle and self.windows == 0:
            raise UserError(
                f"{corpus.prefix} has {self.tokens_per_epoch:,} tokens, fewer than a sequence of {sequence_length:,}: "
                "use a larger corpus or a smaller --data.sequence-length"
            )
        if not shuffle:
            self.windows = -(-self.tokens_per_epoch // sequence_length)
        self._epoch = -1
        self._stream_starts: Int64Array  # [documents + 1] where each document starts in the epoch's stream
        self._shifts: Int64Array  # [documents] from a place in the stream to its place in the .bin
        self._window_order: Int64Array | None

    def _load_epoch(self, epoch: int) -> None:
        """Lay out the stream of `epoch`; batches are read in order, so one epoch at a time is enough."""
        starts = self.corpus.document_starts
        if self.shuffle:
            order = permutation(self.seed, epoch, Stream.DOCUMENT_ORDER, self.corpus.documents)
            lengths = starts[order + 1] - starts[order]
            self._window_order = permutation(self.seed, epoch, Stream.WINDOW_ORDER, self.windows)
        else:
            order, lengths = np.arange(self.corpus.documents), np.diff(starts)
            self._window_order = None
        stream_starts = np.zeros(self.corpus.documents + 1, dtype=np.int64)
        np.cumsum(lengths + 1, out=stream_starts[1:])
        self._stream_starts = stream_starts
        self._shifts = starts[order] - stream_starts[:-1] - 1  # the stream's first token of a document is its [CLS]
        self._epoch = epoch

    def _documents_in(self, begins: Int64Array, ends: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Every (row, document) such that the document has tokens in the stream's `begins[row]` to `ends[row]`."""
        first = np.searchsorted(self._stream_starts, begins, side="right") - 1
        counts = np.searchsorted(self._stream_starts, ends, side="left") - first
        rows = np.repeat(np.arange(len(begins)), counts)
        places_in_row = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, first[rows] + places_in_row

    def windows_of(self, epoch: int, indices: Int64Array) -> tuple[Int64Array, np.ndarray[Any, np.dtype[np.bool_]]]:
        """The windows `indices` [b], each in 0 ... `windows` - 1, of an epoch.

        Returns the token ids, int64 [b, s], and where segments begin, bool [b, s]: at each document's [CLS], at the
        start of each window (a document's continuation is a segment of its own) and at the start of the [PAD]s.
        Costs O(b x s + b log documents).
        """
        if epoch != self._epoch:
            self._load_epoch(epoch)
        length = self.sequence_length
        places = indices if self._window_order is None else self._window_order[indices]
        begins = places * length
        ends = np.minimum(begins + length, self.tokens_per_epoch)
        rows, documents = self._documents_in(begins, ends)
        document_begins = self._stream_starts[documents]
        spans = np.minimum(self._stream_starts[documents + 1], ends[rows]) - np.maximum(document_begins, begins[rows])
        opened_here = document_begins >= begins[rows]
        cls_at = rows[opened_here], (document_begins - begins[rows])[opened_here]

        sources = begins[:, None] + np.arange(length)  # places in the stream, then in the .bin
        padding = sources >= self.tokens_per_epoch
        sources[~padding] += np.repeat(self._shifts[documents], spans)
        sources[padding] = 0
        sources[cls_at] = 0  # a [CLS] has no place in the .bin
        tokens = self.corpus.tokens[sources].astype(np.int64)
        tokens[cls_at] = self.special.cls
        tokens[padding] = self.special.pad
        boundaries = np.zeros(tokens.shape, dtype=np.bool_)
        boundaries[:, 0] = True
        boundaries[cls_at] = True
        boundaries[:, 1:] |= padding[:, 1:] & ~padding[:, :-1]
        return tokens, boundaries
