"""Choices by hash: the same ones on every machine, whatever the order of the documents."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from preprocessing.corpus.document import Document


def hash_order(seed: int, key: str) -> str:
    """A position in an order that depends on nothing but the seed and the key."""
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def choose_documents(documents: Sequence[Document], limit: int, seed: int) -> list[Document]:
    """At most `limit` documents, sources in turn and each in hash order, so that rare sources are heard."""
    queues: dict[str, list[Document]] = defaultdict(list)
    for document in sorted(documents, key=lambda item: hash_order(seed, item.id), reverse=True):
        queues[document.source].append(document)
    chosen: list[Document] = []
    while len(chosen) < limit and any(queues.values()):
        for source in sorted(queues):
            if queues[source] and len(chosen) < limit:
                chosen.append(queues[source].pop())
    return chosen
