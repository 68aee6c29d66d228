"""Filled masks to read: short test passages with one word hidden, the true word and the model's five best."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.choice import choose_documents, hash_order
from evaluation.fill_mask import TOP
from evaluation.results import Guess, Sample
from preprocessing.corpus.document import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"(?<=\s)[^\W\d_]{4,}(?=[\s.,;:!?])")
LEAST_WORDS, MOST_WORDS = 7, 24


def sentences(document: Document) -> Iterator[str]:
    """The document's sentences of readable length."""
    for line in document.text.splitlines():
        for sentence in re.split(r"(?<=[.!?…])\s+", line.strip()):
            if LEAST_WORDS <= len(sentence.split()) <= MOST_WORDS and sentence[-1:] in ".!?…":
                yield sentence


def single_token_words(tokenizer: PreTrainedTokenizerBase, sentence: str) -> list[tuple[int, int, int, int]]:
    """(start, end, token position, token id) of words of four letters or more that are exactly one token.

    Offsets are characters; the position counts the special token in front. A byte-level token may carry its space.
    """
    encoded = tokenizer(sentence, return_offsets_mapping=True)
    spans: dict[tuple[int, int], int] = {}
    for position, (start, end) in enumerate(encoded["offset_mapping"]):
        stripped = start + len(sentence[start:end]) - len(sentence[start:end].lstrip())
        spans[(stripped, end)] = position
    found = []
    for match in WORD.finditer(sentence):
        if match.span() in spans:
            position = spans[match.span()]
            found.append((*match.span(), position, int(encoded["input_ids"][position])))
    return found


def choose_questions(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], count: int, seed: int
) -> Iterator[tuple[Document, str, tuple[int, int, int, int]]]:
    """`count` (document, sentence, word) triples, at most one a document, sources in turn, chosen by hash."""
    made = 0
    for document in choose_documents(documents, len(documents), seed):
        if made == count:
            return
        options = [(sentence, word) for sentence in sentences(document) for word in single_token_words(tokenizer, sentence)]
        if options:
            sentence, word = min(options, key=lambda option: hash_order(seed, f"{option[0]}:{option[1][0]}"))
            yield document, sentence, word
            made += 1


def samples(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    count: int = 12,
    seed: int = 0,
) -> list[Sample]:
    """Ask `model` (fp32, evaluation mode) for one hidden word in each of `count` test sentences."""
    import torch

    answers = []
    for document, sentence, (start, end, position, token) in choose_questions(tokenizer, documents, count, seed):
        ids = torch.tensor([tokenizer(sentence)["input_ids"]], device=model.device)
        ids[0, position] = tokenizer.mask_token_id
        with torch.inference_mode():
            probabilities = model(input_ids=ids).logits[0, position].float().softmax(-1)
        best = probabilities.topk(min(TOP, len(probabilities)))
        guesses = [
            Guess(token=str(tokenizer.decode([int(i)])).strip() or "␣", probability=float(p))
            for p, i in zip(best.values, best.indices, strict=True)
        ]
        answers.append(
            Sample(
                id=document.id,
                source=document.source,
                before=sentence[:start],
                truth=sentence[start:end],
                after=sentence[end:],
                truth_probability=float(probabilities[token]),
                guesses=guesses,
            )
        )
    return answers
