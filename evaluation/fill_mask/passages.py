"""The texts that all models of a call are asked about: the same characters for each, cut where the shortest context ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.choice import choose_documents, hash_order
from evaluation.fill_mask.settings import FillMaskSettings
from evaluation.fill_mask.tokens import Encoded, encode
from mecellem.errors import UserError
from preprocessing.corpus.document import Document
from preprocessing.turkish import sentence_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLOCK = re.compile(r"\S+")
LEAST_WORDS, MOST_WORDS = 5, 40  # of a sentence that is scored: shorter ones are headings, longer ones cost their square


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of one document; `id` and `domain` are the document's."""

    id: str
    domain: str
    text: str


@dataclass(frozen=True, slots=True)
class Reader:
    """A model's tokenizer and how many tokens the model sees, special ones included. `name` is for messages."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    positions: int


@dataclass(frozen=True, slots=True)
class Passages:
    """What was chosen. `cut`: passages shortened, and `long_sentences` left out, for the context of a model."""

    passages: tuple[Passage, ...]
    sentences: tuple[Passage, ...]
    cut: int
    long_sentences: int


def first_words(text: str, most: int) -> str:
    """The text up to the end of its word number `most`; words are what white space separates."""
    for number, match in enumerate(BLOCK.finditer(text), start=1):
        if number == most:
            return text[: match.end()]
    return text


def fitting(text: str, encoded: Encoded, positions: int) -> str:
    """The beginning of a text that is `positions` tokens at most, special ones included; whole words where it has several."""
    excess = len(encoded.ids) - positions
    if excess <= 0:
        return text
    places = encoded.with_text.nonzero()[0]
    ends = encoded.spans[places, 1]
    # a character of several tokens is kept whole or not at all, so that every cut makes the text shorter
    kept = ends[(places <= places[-1:] - excess) & (ends < ends[-1:])]
    if not len(kept):
        return ""
    end = int(kept[-1])
    words = [match.end() for match in BLOCK.finditer(text) if match.end() <= end]
    return text[: words[-1] if words else end]


def cut_to_fit(texts: Sequence[str], readers: Sequence[Reader]) -> list[str]:
    """Each text cut until it fits every reader; "" where nothing of it does."""
    found = list(texts)
    pending = list(range(len(found)))
    while pending:
        before = [found[number] for number in pending]
        for reader in readers:
            encoded = encode(reader.tokenizer, [found[number] for number in pending])
            for number, item in zip(pending, encoded, strict=True):
                found[number] = fitting(item.text, item, reader.positions)
        # a shorter text can be more tokens, of a word that is one token whole: look again at what was cut
        pending = [number for number, text in zip(pending, before, strict=True) if found[number] != text]
    return found


def one_sentence(document: Document, seed: int) -> str | None:
    """A sentence of the document, of readable length, by hash; None where it has none."""
    spans = (document.text[start:end].strip() for start, end in sentence_spans(document.text))
    found = [sentence for sentence in spans if LEAST_WORDS <= len(sentence.split()) <= MOST_WORDS]
    return min(found, key=lambda sentence: hash_order(seed, sentence), default=None)


def choose_sentences(documents: Sequence[Document], count: int, seed: int) -> list[Passage]:
    """At most `count` sentences, one a document, domains in turn."""
    found = {document.id: sentence for document in documents if (sentence := one_sentence(document, seed)) is not None}
    able = [document for document in documents if document.id in found]
    return [Passage(item.id, item.source, found[item.id]) for item in choose_documents(able, count, seed)]


def choose_passages(documents: Sequence[Document], readers: Sequence[Reader], settings: FillMaskSettings) -> Passages:
    """What to ask all readers about. Raises `UserError` where nothing is left to ask."""
    with_text = [document for document in documents if document.text.strip()]
    chosen = choose_documents(with_text, settings.mask_documents, settings.mask_seed)
    wanted = [first_words(document.text, settings.mask_words) for document in chosen]
    texts = cut_to_fit(wanted, readers)
    passages = tuple(
        Passage(document.id, document.source, text) for document, text in zip(chosen, texts, strict=True) if text.strip()
    )
    if not passages:
        raise UserError("no token of the texts can be masked: they are empty for these tokenizers, or nothing fits a model")
    sentences = choose_sentences(chosen, settings.pll_sentences, settings.mask_seed)
    short = cut_to_fit([sentence.text for sentence in sentences], readers)
    kept = tuple(sentence for sentence, text in zip(sentences, short, strict=True) if sentence.text == text)
    return Passages(
        passages,
        kept,
        cut=sum(text != whole for text, whole in zip(texts, wanted, strict=True)),
        long_sentences=len(sentences) - len(kept),
    )
