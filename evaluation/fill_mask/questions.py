"""What is hidden: tokens as in training (80/10/10), whole words, and each token for the pseudo-perplexity.

Which words are chosen depends on the document's id and its text alone, so all models are asked for the same ones; which
tokens, on the tokenizer too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.choice import hash_order
from evaluation.fill_mask.scoring import Answers, Row, hits
from evaluation.fill_mask.tokens import Encoded, Ints, Span, piece_groups, word_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Question:
    """A row, and how its hidden tokens belong together: numbers into its positions, a group an item."""

    row: Row
    groups: tuple[Ints, ...]

    def hits(self, answers: Answers) -> tuple[int, int]:
        """How many groups are right at the first choice, and among the first five."""
        found = [hits(answers, group) for group in self.groups]
        return sum(first for first, _ in found), sum(among for _, among in found)


def generator(seed: int, key: str) -> np.random.Generator:
    """Random numbers that depend on the seed and the key alone."""
    return np.random.default_rng(int(hash_order(seed, key)[:16], 16))


def mask_ids(
    ids: Ints, special: Ints, mask_id: int, replacements: Ints, probability: float, rng: np.random.Generator
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Corrupted ids `[n]`, the positions asked for `[k]` in order, and which of them are shown as the mask `[k]`.

    80% are shown as the mask, 10% as a random token, 10% unchanged (Devlin et al. 2019, section 3.1). k is the rounded
    share of maskable tokens, at least one; special tokens never are. k is 0 when all are special.
    """
    maskable = np.flatnonzero(~np.isin(ids, special))
    count = min(len(maskable), max(1, round(probability * len(maskable))))
    positions = np.sort(rng.permutation(maskable)[:count])
    draw = rng.random(count)
    shown = draw < 0.8
    swapped = (draw >= 0.8) & (draw < 0.9)
    corrupted = ids.copy()
    corrupted[positions[shown]] = mask_id
    corrupted[positions[swapped]] = rng.choice(replacements, int(swapped.sum()))
    return corrupted, positions, shown


class TokenMasker:
    """Masks tokens of one tokenizer as the paper's evaluation does."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, probability: float, seed: int) -> None:
        self.special = np.array(sorted(tokenizer.all_special_ids), dtype=np.int64)
        self.replacements = np.setdiff1d(np.arange(len(tokenizer), dtype=np.int64), self.special)
        self.mask_id = int(tokenizer.mask_token_id)
        self.probability, self.seed = probability, seed

    def row(self, key: str, ids: Ints) -> tuple[Row, NDArray[np.bool_]]:
        """The row of the document `key`, and which of its positions are shown as the mask."""
        rng = generator(self.seed, key)
        corrupted, positions, shown = mask_ids(ids, self.special, self.mask_id, self.replacements, self.probability, rng)
        return Row(corrupted, positions, ids[positions]), shown


def chosen_words(key: str, text: str, probability: float, seed: int) -> list[Span]:
    """The words to hide: the rounded share of all, at least one where there are any."""
    words = word_spans(text)
    count = min(len(words), max(1, round(probability * len(words))))
    return [words[number] for number in sorted(generator(seed, f"words:{key}").permutation(len(words))[:count])]


def hide(encoded: Encoded, spans: list[Span], mask_id: int) -> Question:
    """All tokens that touch the spans as masks: a group a span, empty for a span of which the tokenizer makes nothing."""
    pieces = [encoded.touching(span) for span in spans]
    positions = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *pieces]))
    ids = encoded.ids.copy()
    ids[positions] = mask_id
    groups = tuple(np.searchsorted(positions, part) for part in pieces)
    return Question(Row(ids, positions, encoded.ids[positions]), groups)


def word_question(encoded: Encoded, spans: list[Span], mask_id: int, unknown_id: int | None) -> Question:
    """The words to guess, but those that the tokenizer cannot write: these count as wrong."""
    question = hide(encoded, spans, mask_id)
    labels = question.row.labels
    writable = tuple(group for group in question.groups if len(group) and not (labels[group] == unknown_id).any())
    return Question(question.row, writable)


def pll_rows_of(encoded: Encoded, group: Ints, mask_id: int) -> list[Row]:
    """A row a token of one word: it is hidden together with the later tokens of the word, the earlier ones are seen.

    Kauf and Ivanova 2023 (arXiv 2305.10588): hiding one piece alone lets a model copy a rare word from its other pieces.
    """
    rows = []
    for number, position in enumerate(group):
        ids = encoded.ids.copy()
        ids[group[number:]] = mask_id
        rows.append(Row(ids, group[number : number + 1], encoded.ids[position : position + 1]))
    return rows


def pll_rows(encoded: Encoded, mask_id: int) -> list[Row]:
    """The rows of all words and signs of a text: every token with text is asked for once."""
    return [row for group in piece_groups(encoded) for row in pll_rows_of(encoded, group, mask_id)]
