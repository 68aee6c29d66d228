"""Queries and candidates from documents that carry their own judgements: a title and its text, a definition and its example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from preprocessing.corpus.document import Document
from preprocessing.turkish import lower

# (queries, documents): query id = id of its document, so a candidate without a query is only a distractor.
Pool = tuple[dict[str, str], dict[str, str]]


def without_title(title: str, text: str) -> str:
    """The text without the lines that repeat the title: else the title's words would give the answer away."""
    asked = lower(title.strip())
    return "\n".join(line for line in text.splitlines() if lower(line.strip()) != asked)


def titled_pool(documents: Sequence[Document], title_words: int, body_words: int = 20) -> Pool:
    """Title -> text. Every text of `body_words` is a candidate; titles that are unique and long enough are queries."""
    titles = Counter(lower(document.title.strip()) for document in documents)
    queries, candidates = {}, {}
    for document in documents:
        title, body = document.title.strip(), without_title(document.title, document.text)
        if len(body.split()) < body_words:
            continue
        candidates[document.id] = body
        if titles[lower(title)] == 1 and len(title.split()) >= title_words:
            queries[document.id] = title
    return queries, candidates


def speeches(documents: Sequence[Document]) -> Pool:
    """Title -> speech, letter or telegram; titles of at least three words ("Nutuk" alone describes nothing)."""
    return titled_pool(documents, title_words=3)


def titled_texts(documents: Sequence[Document]) -> Pool:
    """Title -> text, for any corpus; titles of at least two words."""
    return titled_pool(documents, title_words=2)


def dictionary_examples(documents: Sequence[Document]) -> Pool:
    """Definition -> example sentence of the same synset, both of five words or more.

    An example or definition that several synsets share is dropped: its question would have several answers.
    """
    entries = [
        (item.id, item.definitions[0].strip(), item.examples[0].strip())
        for item in documents
        if item.definitions and item.examples
    ]
    entries = [entry for entry in entries if len(entry[1].split()) >= 5 and len(entry[2].split()) >= 5]
    definitions = Counter(lower(definition) for _, definition, _ in entries)
    examples = Counter(lower(example) for _, _, example in entries)
    entries = [entry for entry in entries if definitions[lower(entry[1])] == 1 and examples[lower(entry[2])] == 1]
    return {key: definition for key, definition, _ in entries}, {key: example for key, _, example in entries}
