"""The legal cloze: a sentence with one term hidden, asked openly and, where wanted, among all candidates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.choice import choose_documents, hash_order
from evaluation.fill_mask.legal_terms import candidates, readings
from evaluation.fill_mask.passages import Reader
from evaluation.fill_mask.questions import pll_rows_of, word_question
from evaluation.fill_mask.scoring import Answers, Row, score_rows
from evaluation.fill_mask.tokens import Encoded, Span, encode
from mecellem.errors import UserError
from preprocessing.corpus.document import Document
from preprocessing.jsonl import check_inputs, json_type, read_fields
from preprocessing.turkish import WORDS, fold, sentence_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASK = "[MASK]"  # in users' items, whatever a model's own mask is called
LEAST_WORDS, MOST_WORDS = 6, 60
ENOUGH = 20  # built-in items are chosen among so many times as many


@dataclass(frozen=True, slots=True)
class ClozeItem:
    """`before` + `answer` + `after` is the sentence. `candidates` hold the answer; `place` is for messages, and the id."""

    place: str
    before: str
    answer: str
    after: str
    candidates: tuple[str, ...]

    def span(self, word: str) -> Span:
        """Where `word` lies in the sentence that has it in place of the answer."""
        return len(self.before), len(self.before) + len(word)

    def sentence(self, word: str) -> str:
        """The sentence with `word` in place of the answer."""
        return self.before + word + self.after


def read_items(paths: Sequence[Path]) -> list[ClozeItem]:
    """The items of .jsonl files: {"text": "... [MASK] ...", "answer": "..."} and, if wanted, "candidates": [...].

    An item without candidates has all answers of the files. Raises `UserError`, with file and line, for other records.
    """
    check_inputs(paths, "--cloze")
    found = [_item(path, number, fields) for path in paths for number, fields in read_fields(path)]
    if not found:
        raise UserError(f'{", ".join(map(str, paths))} (--cloze) has no item: give {{"text": "... {MASK} ...", "answer": ...}}')
    answers = tuple(dict.fromkeys(item.answer for item in found))
    return [item if item.candidates else ClozeItem(item.place, item.before, item.answer, item.after, answers) for item in found]


def _item(path: Path, number: int, fields: Mapping[str, Any]) -> ClozeItem:
    where, text, answer = f"{path}, line {number}", fields["text"], fields.get("answer")
    if not isinstance(answer, str) or not answer.strip() or answer != answer.strip():
        raise UserError(f'{where}: "answer" must be the word that {MASK} hides, without white space around it')
    if text.count(MASK) != 1:
        hint = f"write it in place of {answer!r}" if answer in text and MASK not in text else "write it where the answer stands"
        raise UserError(f'{where}: "text" has {MASK} {text.count(MASK)} times, one is needed: {hint}')
    choices = fields.get("candidates") or []
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise UserError(f'{where}: "candidates" must be an array of words, not {json_type(choices)}')
    if choices and answer not in choices:
        raise UserError(f'{where}: the answer {answer!r} is not among the "candidates": add it')
    before, after = text.split(MASK)
    return ClozeItem(where, before, answer, after, tuple(dict.fromkeys(choices)))


def make_items(documents: Sequence[Document], readers: Sequence[Reader], count: int, seed: int) -> list[ClozeItem]:
    """At most `count` items of held-out text: a sentence with one of its legal terms hidden, terms in turn, by hash."""
    by_term: dict[str, list[ClozeItem]] = defaultdict(list)
    made = 0
    for document in choose_documents(documents, len(documents), seed):
        for item, term in _items_of(document, seed):
            by_term[term].append(item)
            made += 1
        if made >= ENOUGH * count:
            break
    chosen: list[ClozeItem] = []
    queues = [sorted(by_term[term], key=lambda item: hash_order(seed, item.place)) for term in sorted(by_term)]
    for turn in range(max(map(len, queues), default=0)):
        chosen += [queue[turn] for queue in queues if turn < len(queue)]
    return [item for item in chosen[:count] if not too_long([item], readers)]


def _items_of(document: Document, seed: int) -> list[tuple[ClozeItem, str]]:
    """At most one item a sentence of the document, with its term."""
    found = []
    for start, end in sentence_spans(document.text):
        sentence = " ".join(document.text[start:end].split())
        if not LEAST_WORDS <= len(sentence.split()) <= MOST_WORDS:
            continue
        whole = fold(sentence)
        places = [
            (match, term)
            for match in WORDS.finditer(sentence)
            if (read := readings(match[0])) and whole.count(fold(term := read[0][0].bare)) <= 1  # nothing to copy
        ]
        if places:
            match, term = min(places, key=lambda place: hash_order(seed, f"{sentence}:{place[0].start()}"))
            cut, word = match.span(), match[0]
            item = ClozeItem(f"{document.id}:{start}", sentence[: cut[0]], word, sentence[cut[1] :], candidates(word))
            found.append((item, term))
    return found


def too_long(items: Sequence[ClozeItem], readers: Sequence[Reader]) -> str | None:
    """A sentence that says which item does not fit which model; None where all do."""
    for reader in readers:
        encoded = encode(reader.tokenizer, [item.sentence(item.answer) for item in items])
        for item, found in zip(items, encoded, strict=True):
            if len(found.ids) > reader.positions:
                return (
                    f"{item.place}: the text has {len(found.ids):,} tokens, {reader.name} sees {reader.positions:,}: "
                    "shorten it around [MASK]"
                )
    return None


def open_hits(
    model: Any, tokenizer: PreTrainedTokenizerBase, items: Sequence[ClozeItem], batch_tokens: int
) -> list[tuple[int, int]]:
    """Of each item, whether the hidden word is the first choice, and among the first five."""
    encoded = encode(tokenizer, [item.sentence(item.answer) for item in items])
    questions = [
        word_question(text, [item.span(item.answer)], int(tokenizer.mask_token_id), tokenizer.unk_token_id)
        for item, text in zip(items, encoded, strict=True)
    ]
    rows = [question.row for question in questions]
    answers = score_rows(model, rows, tokenizer.pad_token_id or 0, batch_tokens, "cloze")
    return [question.hits(found) for question, found in zip(questions, answers, strict=True)]


def ranks(model: Any, tokenizer: PreTrainedTokenizerBase, items: Sequence[ClozeItem], batch_tokens: int) -> list[int]:
    """The answer's place (1: first) among its item's candidates by the product of their pieces' probabilities.

    Pieces are scored left to right as in the pseudo-perplexity; candidates that begin alike share rows. A candidate that
    the tokenizer cannot write has no probability, and a tie is lost.
    """
    found = []
    for item in items:
        encoded = encode(tokenizer, [item.sentence(word) for word in item.candidates])
        scores = _candidate_scores(model, tokenizer, item, encoded, batch_tokens)
        own = scores[item.candidates.index(item.answer)]
        found.append(int((scores >= own).sum()) if np.isfinite(own) else len(item.candidates))
    return found


def _candidate_scores(
    model: Any, tokenizer: PreTrainedTokenizerBase, item: ClozeItem, encoded: Sequence[Encoded], batch_tokens: int
) -> np.ndarray:
    """Log-probability of each candidate `[candidates]`, minus infinity for one that cannot be written."""
    scores = np.zeros(len(item.candidates))
    asked: dict[bytes, list[tuple[int, Row]]] = defaultdict(list)  # what is seen -> candidates that ask there
    for number, (word, text) in enumerate(zip(item.candidates, encoded, strict=True)):
        pieces = text.touching(item.span(word))
        if not len(pieces) or (text.ids[pieces] == tokenizer.unk_token_id).any():
            scores[number] = -np.inf
            continue
        for row in pll_rows_of(text, pieces, int(tokenizer.mask_token_id)):
            asked[row.ids.tobytes()].append((number, row))
    rows = [
        Row(users[0][1].ids, *(np.concatenate([getattr(row, name) for _, row in users]) for name in ("positions", "labels")))
        for users in asked.values()
    ]
    answers: list[Answers] = score_rows(model, rows, tokenizer.pad_token_id or 0, batch_tokens, "cloze ranking")
    for users, answer in zip(asked.values(), answers, strict=True):
        for (number, _), value in zip(users, answer.label, strict=True):
            scores[number] += value
    return scores


def frequency_hits(items: Sequence[ClozeItem], words: Counter[str], ranking: bool) -> list[tuple[int, int]]:
    """The baseline: always the commonest words of the training text, or its commonest candidates. A tie is lost."""
    common = [count for _, count in words.most_common(5)]
    found = []
    for item in items:
        own = words[item.answer]
        if ranking:
            place = sum(words[word] >= own for word in item.candidates)
            found.append((int(own > 0 and place <= 1), int(own > 0 and place <= 5)))
        else:
            found.append((int(own > 0 and own >= common[0]), int(own > 0 and own >= common[-1])))
    return found
