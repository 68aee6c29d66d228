"""What a model's vocabulary works on: the words that normalizer and pre-tokenizer leave, with their counts by language.

A "word" is a piece of text that no entry reaches across: a pre-token, and where the teacher splits nothing (Llama 2, Gemma)
a run of SentencePiece's spaces with what follows up to the next. Of scripts without spaces that is a paragraph: long ones are
cut where letters end, and else anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import regex
from numpy.typing import NDArray

from preprocessing.graft.teacher import CHUNK, Teacher

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_UNSPACED = regex.compile(  # scripts that write no spaces between words
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Javanese}\p{Balinese}]"
)
_STRETCH = regex.compile(r"\u2581*[\p{L}\p{M}]+|[^\p{L}\p{M}\u2581]+|\u2581+")  # letters with the space before them, or others
_BATCH = 1 << 16  # words: an encoding takes some hundred bytes
LONGEST = 128  # characters of a word that is counted: longer ones are no words, and memory grows with them
_MOST_WORDS = 600_000  # different ones that are looked at, the most frequent first


@dataclass(frozen=True, slots=True)
class Words:
    """Different words of all languages, sorted; `counts` is (languages, words), in the languages' order."""

    words: list[str]
    counts: NDArray[np.float64]

    def mixture(self, shares: Sequence[float]) -> NDArray[np.float64]:
        """(words,): counts as if each language had its share of all text, languages without text aside."""
        totals = self.counts.sum(axis=1, keepdims=True)
        parts = np.divide(self.counts, totals, out=np.zeros_like(self.counts), where=totals > 0)
        weights = np.array(shares) * (totals[:, 0] > 0)
        # not a matrix product: the last bits of those depend on the number of threads
        return np.asarray((weights[:, None] * parts).sum(axis=0) / weights.sum() * self.counts.sum())


def count_words(teacher: Teacher, texts: Iterable[str], into: Counter[str]) -> None:
    """Add the words of texts to `into`."""
    normalizer, pre_tokenizer = teacher.tokenizer.normalizer, teacher.tokenizer.pre_tokenizer
    for text in texts:
        normal = normalizer.normalize_str(text) if normalizer else text
        parts = [part for part, _ in pre_tokenizer.pre_tokenize_str(normal)] if pre_tokenizer else [normal]
        if not teacher.byte_level:
            parts = [piece for part in parts for chunk in CHUNK.findall(part) for piece in _short(chunk)]
        into.update(parts)


def _short(chunk: str) -> Iterator[str]:
    """A chunk, or where it is a paragraph of a script without spaces, its stretches of letters and of other characters."""
    if len(chunk) <= LONGEST or not _UNSPACED.search(chunk):
        yield chunk
        return
    for stretch in _STRETCH.findall(chunk):
        for start in range(0, len(stretch), LONGEST):
            yield stretch[start : start + LONGEST]


def table(counters: Sequence[Counter[str]], shares: Sequence[float]) -> Words:
    """One table of several languages' words: the most frequent ones where each language has its share, ties by the word."""
    weight: dict[str, float] = {}
    for counter, share in zip(counters, shares, strict=True):
        total = sum(counter.values())
        for word, count in counter.items():
            if 0 < len(word) <= LONGEST:
                weight[word] = weight.get(word, 0.0) + share * count / total
    words = sorted(weight, key=lambda word: (-weight[word], word))[:_MOST_WORDS]
    words.sort()
    counts = np.array([[counter[word] for word in words] for counter in counters], np.float64)
    return Words(words, counts.reshape(len(counters), len(words)))


def bare(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer of the model alone, to give words to."""
    from tokenizers import Tokenizer

    return Tokenizer(tokenizer.model)


def segment(model: Tokenizer, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Encode words with a bare model: all ids in order (tokens,), and how many each word has (words,)."""
    ids: list[NDArray[np.int64]] = []
    lengths: list[int] = []
    for start in range(0, len(words), _BATCH):
        found = [encoding.ids for encoding in model.encode_batch_fast(list(words[start : start + _BATCH]))]
        lengths += map(len, found)
        ids.append(np.fromiter(chain.from_iterable(found), np.int64))
    return (np.concatenate(ids) if ids else np.zeros(0, np.int64)), np.array(lengths, np.int64)


def uses(model: Tokenizer, words: Words, size: int) -> NDArray[np.float64]:
    """(languages, size): how often a bare model uses each of its ids."""
    ids, lengths = segment(model, words.words)
    return np.stack([np.bincount(ids, np.repeat(count, lengths), minlength=size) for count in words.counts])
