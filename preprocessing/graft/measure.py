"""Tokens a word and bytes a token on held-out texts, of the teacher's tokenizer and of the new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH = 2_000  # texts: encodings take memory


@dataclass(slots=True)
class Fertility:
    """Counts over some texts; special tokens are no tokens here. `unknown` counts tokens that spell nothing."""

    words: int = 0
    bytes: int = 0
    tokens: int = 0
    unknown: int = 0

    def add(self, other: Fertility) -> None:
        """Add the counts of other texts."""
        self.words += other.words
        self.bytes += other.bytes
        self.tokens += other.tokens
        self.unknown += other.unknown

    def figures(self) -> dict[str, Any]:
        """What graft.json has; None where there is nothing to divide by."""
        return {
            "tokens": self.tokens,
            "tokens_per_word": round(self.tokens / self.words, 4) if self.words else None,
            "bytes_per_token": round(self.bytes / self.tokens, 4) if self.tokens else None,
            "unknown": self.unknown,
        }


def fertility(tokenizer: Tokenizer, texts: Sequence[str], unknown: int | None) -> tuple[Fertility, list[str]]:
    """Encode texts, and decode them again. Words are what white space separates; `unknown` is the unknown entry's id."""
    found, decoded = Fertility(), []
    for start in range(0, len(texts), _BATCH):
        part = list(texts[start : start + _BATCH])
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(part, add_special_tokens=False)]
        found.tokens += sum(map(len, ids))
        found.unknown += sum(one.count(unknown) for one in ids) if unknown is not None else 0
        decoded += tokenizer.decode_batch(ids, skip_special_tokens=False)
    found.words = sum(len(text.split()) for text in texts)
    found.bytes = sum(len(text.encode()) for text in texts)
    return found, decoded
