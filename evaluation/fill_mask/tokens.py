"""Where the tokens of a text lie in it, whatever the tokenizer: the bridge between words and pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preprocessing.turkish import WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
Ints = NDArray[np.int64]

# Words and signs, as in preprocessing.turkish.tokens: all that is not white space belongs to exactly one.
UNITS = re.compile(rf"{WORDS.pattern}|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as a model reads it: `ids` `[n]`, special tokens included; `spans` `[n, 2]`: each token's characters.

    A span is without white space around it, and empty for special tokens and for tokens of white space alone.
    """

    text: str
    ids: Ints
    spans: Ints

    def touching(self, span: Span) -> Ints:
        """Positions of the tokens that have a character in `span`, in order."""
        start, end = span
        return np.flatnonzero((self.spans[:, 0] < end) & (self.spans[:, 1] > start) & self.with_text)

    @property
    def with_text(self) -> NDArray[np.bool_]:
        """`[n]`: which tokens stand for something that is not white space."""
        return self.spans[:, 1] > self.spans[:, 0]


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoded]:
    """Each text whole, never cut, with the special tokens that the model expects around it."""
    if not texts:
        return []
    found = tokenizer(
        list(texts), truncation=False, padding=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    encoded = []
    for text, ids, offsets in zip(texts, found["input_ids"], found["offset_mapping"], strict=True):
        spans = np.array([_stripped(text, start, end) for start, end in offsets], dtype=np.int64).reshape(-1, 2)
        encoded.append(Encoded(text, np.array(ids, dtype=np.int64), spans))
    return encoded


def _stripped(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def word_spans(text: str) -> list[Span]:
    """The words of a text that have a letter, suffixes behind an apostrophe included."""
    return [match.span() for match in WORDS.finditer(text) if any(character.isalpha() for character in match[0])]


def piece_groups(encoded: Encoded) -> list[Ints]:
    """The tokens of each word or sign, in order; every token with text is in exactly one group.

    Where a token lies in two words (a bracket glued to a word, say) these are one group.
    """
    units = np.array([match.span() for match in UNITS.finditer(encoded.text)], dtype=np.int64).reshape(-1, 2)
    groups: list[list[int]] = []
    last = -1  # the last unit of the group that is open
    for position in np.flatnonzero(encoded.with_text):
        start, end = encoded.spans[position]
        first = int(np.searchsorted(units[:, 1], start, side="right"))
        if not groups or first > last:
            groups.append([])
        groups[-1].append(int(position))
        last = max(last, int(np.searchsorted(units[:, 0], end, side="left")) - 1)
    return [np.array(group, dtype=np.int64) for group in groups]


def unknown_tokens(tokenizer: PreTrainedTokenizerBase, encoded: Sequence[Encoded]) -> int:
    """How many tokens stand for text that the tokenizer does not have."""
    unknown = tokenizer.unk_token_id
    return 0 if unknown is None else sum(int(((item.ids == unknown) & item.with_text).sum()) for item in encoded)


def altered_texts(tokenizer: PreTrainedTokenizerBase, encoded: Sequence[Encoded]) -> int:
    """How many texts the tokenizer changes (case, accents, signs) so that decoding does not give them back.

    White space is not compared: no measure here counts it.
    """
    decoded = tokenizer.batch_decode(
        [item.ids.tolist() for item in encoded], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return sum("".join(text.split()) != "".join(item.text.split()) for text, item in zip(decoded, encoded, strict=True))
