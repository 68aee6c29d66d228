"""Filled masks to read: short test passages with one word hidden, the true word and the model's five best."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.choice import choose_documents, hash_order
from evaluation.fill_mask.results import Guess, Sample
from evaluation.fill_mask.scoring import TOP
from evaluation.fill_mask.tokens import Encoded, Span, encode
from preprocessing.corpus.document import Document
from preprocessing.turkish import sentence_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"(?<=\s)[^\W\d_]{4,}(?=[\s.,;:!?])")
LEAST_WORDS, MOST_WORDS = 7, 24


def readable_sentences(document: Document) -> Iterator[str]:
    """The document's sentences of readable length."""
    for start, end in sentence_spans(document.text):
        sentence = document.text[start:end].strip()
        if LEAST_WORDS <= len(sentence.split()) <= MOST_WORDS and sentence[-1:] in ".!?…":
            yield sentence


def one_piece_words(encoded: Encoded) -> list[tuple[Span, int]]:
    """(characters, position) of the words of four letters or more that are exactly one token and nothing else."""
    found = []
    for match in WORD.finditer(encoded.text):
        pieces = encoded.touching(match.span())
        if len(pieces) == 1 and tuple(encoded.spans[pieces[0]]) == match.span():
            found.append((match.span(), int(pieces[0])))
    return found


def choose_questions(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], count: int, seed: int
) -> Iterator[tuple[Document, Encoded, Span, int]]:
    """`count` documents with a sentence, a word's characters and its position; sources in turn, chosen by hash."""
    made = 0
    for document in choose_documents(documents, len(documents), seed):
        if made == count:
            return
        encoded = encode(tokenizer, list(readable_sentences(document)))
        options = [(text, *word) for text in encoded for word in one_piece_words(text)]
        if options:
            text, span, position = min(options, key=lambda option: hash_order(seed, f"{option[0].text}:{option[1][0]}"))
            yield document, text, span, position
            made += 1


def samples(
    model: Any, tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], count: int = 12, seed: int = 0
) -> list[Sample]:
    """Ask `model` (fp32, evaluation mode) for one hidden word in each of `count` test sentences."""
    import torch

    answers = []
    for document, text, (start, end), position in choose_questions(tokenizer, documents, count, seed):
        ids = torch.tensor(text.ids[None], device=model.device)
        token = int(ids[0, position])
        ids[0, position] = int(tokenizer.mask_token_id)
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
                before=text.text[:start],
                truth=text.text[start:end],
                after=text.text[end:],
                truth_probability=float(probabilities[token]),
                guesses=guesses,
            )
        )
    return answers
