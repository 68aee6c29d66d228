"""The four measures of one model, and of the unigram baseline on the same questions, as columns of sums by document."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.fill_mask.cloze import ClozeItem, frequency_hits, open_hits, ranks
from evaluation.fill_mask.passages import Passage
from evaluation.fill_mask.questions import TokenMasker, chosen_words, pll_rows, word_question
from evaluation.fill_mask.scoring import TOP, Answers, score_rows
from evaluation.fill_mask.settings import FillMaskSettings
from evaluation.fill_mask.tokens import Encoded, encode, word_spans
from evaluation.results import Record
from preprocessing.turkish import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 2000  # training documents tokenized at a time


class Columns(Record):
    """Numbers by document (cloze: by item), a column a quantity; `seconds` is what they took."""

    values: dict[str, list[float]]
    seconds: float


@dataclass(frozen=True, slots=True)
class Questions:
    """What every model of a call is asked."""

    passages: tuple[Passage, ...]
    sentences: tuple[Passage, ...]
    items: tuple[ClozeItem, ...]


@dataclass(slots=True)
class Unigrams:
    """The training text's words and, by id, one tokenizer's tokens."""

    words: Counter[str]
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class Table:
    """Columns in the making."""

    def __init__(self, *names: str) -> None:
        self.values: dict[str, list[float]] = {name: [] for name in names}
        self.started = time.perf_counter()

    def add(self, **numbers: float) -> None:
        """One document."""
        assert numbers.keys() == self.values.keys()
        for name, number in numbers.items():
            self.values[name].append(float(number))

    def done(self) -> Columns:
        """All documents."""
        return Columns(values=self.values, seconds=time.perf_counter() - self.started)


def _texts(tokenizer: PreTrainedTokenizerBase, passages: Sequence[Passage]) -> list[Encoded]:
    return encode(tokenizer, [passage.text for passage in passages])


TOKEN_COLUMNS = ("asked", "top1", "top5", "shown", "shown_top1", "shown_top5", "nll")
WORD_COLUMNS = ("words", "top1", "top5")
PLL_COLUMNS = ("nll", "tokens", "words", "bytes")
CLOZE_COLUMNS = ("top1", "top5")


def tokens_of_model(
    model: Any, tokenizer: PreTrainedTokenizerBase, passages: Sequence[Passage], settings: FillMaskSettings
) -> Columns:
    """Masked tokens, as the paper's evaluation counts them."""
    table = Table(*TOKEN_COLUMNS)
    masker = TokenMasker(tokenizer, settings.mask_probability, settings.mask_seed)
    masked = [masker.row(item.id, text.ids) for item, text in zip(passages, _texts(tokenizer, passages), strict=True)]
    answers = _score(model, tokenizer, [row for row, _ in masked], settings, "masked tokens")
    for (_, shown), found in zip(masked, answers, strict=True):
        as_good = (found.best >= found.label[:, None]).sum(axis=1)  # a tie is no hit
        _add_tokens(table, as_good <= 1, as_good <= TOP, shown, -found.label)
    return table.done()


def tokens_of_unigrams(
    unigrams: Unigrams, tokenizer: PreTrainedTokenizerBase, passages: Sequence[Passage], settings: FillMaskSettings
) -> Columns:
    """Always the commonest tokens, on the same positions; losses by frequency, one added to every count."""
    table = Table(*TOKEN_COLUMNS)
    masker = TokenMasker(tokenizer, settings.mask_probability, settings.mask_seed)
    order = np.argsort(-unigrams.tokens, kind="stable")[:TOP]
    losses = token_losses(unigrams.tokens)
    for passage, text in zip(passages, _texts(tokenizer, passages), strict=True):
        row, shown = masker.row(passage.id, text.ids)
        _add_tokens(table, row.labels == order[0], np.isin(row.labels, order), shown, losses[row.labels])
    return table.done()


def _add_tokens(table: Table, top1: np.ndarray, top5: np.ndarray, shown: np.ndarray, nll: np.ndarray) -> None:
    table.add(
        asked=len(top1),
        top1=top1.sum(),
        top5=top5.sum(),
        shown=shown.sum(),
        shown_top1=top1[shown].sum(),
        shown_top5=top5[shown].sum(),
        nll=nll.sum(),
    )


def words_of_model(
    model: Any, tokenizer: PreTrainedTokenizerBase, passages: Sequence[Passage], settings: FillMaskSettings
) -> Columns:
    """Whole hidden words, all pieces of a word hidden: right when all of them are."""
    table = Table(*WORD_COLUMNS)
    chosen = [chosen_words(item.id, item.text, settings.mask_probability, settings.mask_seed) for item in passages]
    questions = [
        word_question(text, spans, int(tokenizer.mask_token_id), tokenizer.unk_token_id)
        for text, spans in zip(_texts(tokenizer, passages), chosen, strict=True)
    ]
    answers = _score(model, tokenizer, [question.row for question in questions], settings, "masked words")
    for question, spans, found in zip(questions, chosen, answers, strict=True):
        top1, top5 = question.hits(found)
        table.add(words=len(spans), top1=top1, top5=top5)
    return table.done()


def words_of_unigrams(unigrams: Unigrams, passages: Sequence[Passage], settings: FillMaskSettings) -> Columns:
    """Always the commonest words of the training text."""
    table = Table(*WORD_COLUMNS)
    common = [word for word, _ in unigrams.words.most_common(TOP)]
    for item in passages:
        spans = chosen_words(item.id, item.text, settings.mask_probability, settings.mask_seed)
        asked = [item.text[start:end] for start, end in spans]
        table.add(words=len(asked), top1=asked.count(common[0]), top5=sum(word in common for word in asked))
    return table.done()


def pseudo_of_model(
    model: Any, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Passage], settings: FillMaskSettings
) -> Columns:
    """Pseudo-log-likelihood of each sentence, masked left to right within words."""
    table, texts = Table(*PLL_COLUMNS), _texts(tokenizer, sentences)
    rows = [pll_rows(text, int(tokenizer.mask_token_id)) for text in texts]
    answers = iter(_score(model, tokenizer, [row for part in rows for row in part], settings, "pseudo-perplexity"))
    return _pseudo(table, texts, [-sum(float(next(answers).label[0]) for _ in part) for part in rows])


def pseudo_of_unigrams(unigrams: Unigrams, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Passage]) -> Columns:
    """The same tokens by their frequency."""
    texts, losses = _texts(tokenizer, sentences), token_losses(unigrams.tokens)
    return _pseudo(Table(*PLL_COLUMNS), texts, [float(losses[text.ids[text.with_text]].sum()) for text in texts])


def _pseudo(table: Table, texts: Sequence[Encoded], losses: Sequence[float]) -> Columns:
    for text, nll in zip(texts, losses, strict=True):
        size = len(text.text.encode("utf-8"))
        table.add(nll=nll, tokens=int(text.with_text.sum()), words=len(word_spans(text.text)), bytes=size)
    return table.done()


def cloze_of_model(
    model: Any, tokenizer: PreTrainedTokenizerBase, items: Sequence[ClozeItem], ranking: bool, settings: FillMaskSettings
) -> Columns:
    """Each item's answer at the first choice and among the first five: of all words or, `ranking`, of its candidates."""
    table = Table(*CLOZE_COLUMNS)
    if ranking:
        places = ranks(model, tokenizer, items, settings.mask_batch_tokens)
        found = [(int(place <= 1), int(place <= TOP)) for place in places]
    else:
        found = open_hits(model, tokenizer, items, settings.mask_batch_tokens)
    for top1, top5 in found:
        table.add(top1=top1, top5=top5)
    return table.done()


def cloze_of_unigrams(unigrams: Unigrams, items: Sequence[ClozeItem], ranking: bool) -> Columns:
    """The commonest words of the training text, or the commonest of the candidates."""
    table = Table(*CLOZE_COLUMNS)
    for top1, top5 in frequency_hits(items, unigrams.words, ranking):
        table.add(top1=top1, top5=top5)
    return table.done()


def _score(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Any], settings: FillMaskSettings, title: str
) -> list[Answers]:
    return score_rows(model, rows, tokenizer.pad_token_id or 0, settings.mask_batch_tokens, title)


def token_losses(counts: np.ndarray) -> np.ndarray:
    """Negative log-probability of each id `[vocabulary]` by frequency, one added to every count."""
    losses: np.ndarray = -np.log((counts + 1) / (counts.sum() + len(counts)))
    return losses


def count_words(texts: Sequence[str]) -> Counter[str]:
    """The words of the texts as written, those with a letter."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word in words(text) if any(character.isalpha() for character in word))
    return counts


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """How often each id `[vocabulary]` occurs in the texts, special tokens not added."""
    counts = np.zeros(len(tokenizer), dtype=np.int64)
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        rows = tokenizer(part, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        counts += np.bincount(np.concatenate([np.array(row, np.int64) for row in rows]), minlength=len(counts))
    return counts
