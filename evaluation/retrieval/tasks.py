"""Retrieval tasks from documents that carry their own judgements: a title and its text, a definition and its example.

Queries and candidates are test documents only. Choices are by hash, so a corpus always gives the same tasks.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.choice import hash_order
from evaluation.results import LeftOut, TaskFacts
from evaluation.settings import TaskSettings
from preprocessing.corpus.document import Document
from preprocessing.turkish import lower


@dataclass(frozen=True, slots=True)
class RetrievalTask:
    """Queries and candidate documents by id; `relevant` names the one document that answers each query."""

    name: str
    description: str
    source: str
    queries: dict[str, str]
    documents: dict[str, str]
    relevant: dict[str, str]

    def facts(self) -> TaskFacts:
        """Sizes, and a SHA-256 over everything that scores depend on."""
        content = json.dumps([self.queries, self.documents, self.relevant], ensure_ascii=False, sort_keys=True)
        return TaskFacts(
            name=self.name,
            description=self.description,
            source=self.source,
            queries=len(self.queries),
            documents=len(self.documents),
            sha256=hashlib.sha256(content.encode()).hexdigest(),
        )


# (queries, documents): query id = id of its document, so a candidate without a query is only a distractor.
Pool = tuple[dict[str, str], dict[str, str]]


def without_title(document: Document) -> str:
    """The text without the lines that repeat the title: else the title's words would give the answer away."""
    title = lower(document.title.strip())
    return "\n".join(line for line in document.text.splitlines() if lower(line.strip()) != title)


def titled_pool(documents: Sequence[Document], title_words: int, body_words: int) -> Pool:
    """Title -> text. Every text of `body_words` is a candidate; titles that are unique and long enough are queries."""
    titles = Counter(lower(document.title.strip()) for document in documents)
    queries, candidates = {}, {}
    for document in documents:
        title, body = document.title.strip(), without_title(document)
        if len(body.split()) < body_words:
            continue
        candidates[document.id] = body
        if titles[lower(title)] == 1 and len(title.split()) >= title_words:
            queries[document.id] = title
    return queries, candidates


def speeches(documents: Sequence[Document]) -> Pool:
    """Title -> speech, letter or telegram; titles of at least three words ("Nutuk" alone describes nothing)."""
    return titled_pool(documents, title_words=3, body_words=20)


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


def titled_texts(documents: Sequence[Document]) -> Pool:
    """Title -> text, for any corpus; titles of at least two words."""
    return titled_pool(documents, title_words=2, body_words=20)


# How the queries and candidates of a source are found.
Find = Callable[[Sequence[Document]], Pool]

# The sample's sources: name of the task -> (source, description, how); of any other source: title -> text.
TASKS: dict[str, tuple[str, str, Find]] = {
    "ataturk_title": ("ataturk", "Atatürk: title to speech", speeches),
    "kenet_example": ("kenet", "KeNet: definition to example", dictionary_examples),
    "libreoffice_title": ("libreoffice", "LibreOffice help: title to page", titled_texts),
}

# The sample's treebank names the article that a passage was cut from, which says little about the passage.
WITHOUT_TASK = "treebank"


def tasks_of(documents: Sequence[Document]) -> dict[str, tuple[str, str, Find]]:
    """The tasks to try, by name: the sample's own if any of its sources is there, and one a source that has titles."""
    sources = {document.source for document in documents}
    own = {source for source, _, _ in TASKS.values()} | {WITHOUT_TASK}
    titled = sorted({document.source for document in documents if document.title.strip()} - own)
    general = {f"{source}_title": (source, f"{source}: title to text", titled_texts) for source in titled}
    return (TASKS if sources & own else {}) | general


def keep(items: dict[str, str], limit: int, seed: int) -> dict[str, str]:
    """The first `limit` items in hash order."""
    return {key: items[key] for key in sorted(items, key=lambda key: hash_order(seed, key))[:limit]}


def build_task(name: str, documents: Sequence[Document], settings: TaskSettings) -> RetrievalTask | LeftOut:
    """One of the tasks `tasks_of` the test documents, or the reason why it is left out."""
    source, description, find = tasks_of(documents)[name]
    own = [document for document in documents if document.source == source]
    if not own:
        return LeftOut(name=name, reason=f"the test split has no documents of the source {source}")
    queries, candidates = find(own)
    if len(queries) < settings.min_queries:
        return LeftOut(
            name=name, reason=f"{len(queries)} queries in the test split, at least {settings.min_queries} are asked for"
        )
    queries = keep(queries, settings.max_queries, settings.task_seed)
    others = {key: text for key, text in candidates.items() if key not in queries}
    distractors = keep(others, settings.max_documents - len(queries), settings.task_seed)
    chosen = {key: candidates[key] for key in sorted({*queries, *distractors})}
    return RetrievalTask(name, description, source, queries, chosen, {key: key for key in queries})


def build_tasks(documents: Sequence[Document], settings: TaskSettings) -> tuple[list[RetrievalTask], list[LeftOut]]:
    """All tasks that the test split allows (none where nothing has a title), and those that were tried and left out."""
    built = [build_task(name, documents, settings) for name in tasks_of(documents)]
    tasks = [task for task in built if isinstance(task, RetrievalTask)]
    return tasks, [task for task in built if isinstance(task, LeftOut)]
