"""The rows of a task, as they are stored and scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.choice import hash_order
from evaluation.tasks.facts import Category

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """A task before it is stored. `tables`: file name without suffix -> rows, in the columns that mteb reads.

    retrieval: `corpus` and `queries` (id, text), `qrels` (query-id, corpus-id, score); bitext: `test` (sentence1, sentence2);
    classification: `train`, `test` (text, label); clustering: `test` (sentences, labels); pair: `test` (sentence1, sentence2,
    labels).
    """

    name: str
    description: str
    category: Category
    languages: tuple[str, ...]
    source: str
    licence: str
    tables: dict[str, list[Row]]

    @property
    def items(self) -> int:
        """Queries, pairs or scored texts."""
        return len(self.tables["queries" if self.category == "retrieval" else "test"])

    @property
    def documents(self) -> int | None:
        """Candidates of a retrieval task."""
        return len(self.tables["corpus"]) if self.category == "retrieval" else None


def retrieval_tables(
    queries: Mapping[str, str], corpus: Mapping[str, str], relevant: Mapping[str, str]
) -> dict[str, list[Row]]:
    """Tables of a retrieval task in which `relevant` names the one document that answers each query."""
    return {
        "corpus": [{"id": key, "text": text} for key, text in corpus.items()],
        "queries": [{"id": key, "text": text} for key, text in queries.items()],
        "qrels": [{"query-id": query, "corpus-id": document, "score": 1} for query, document in relevant.items()],
    }


def keep(items: Mapping[str, str], limit: int, seed: int = 0) -> dict[str, str]:
    """The first `limit` items in hash order: the same ones on every machine."""
    return {key: items[key] for key in sorted(items, key=lambda key: hash_order(seed, key))[:limit]}


def distinct(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs in their order, without those whose first or second text an earlier one has: each text has one answer."""
    kept, first, second = [], set(), set()
    for one, other in rows:
        if one not in first and other not in second:
            first.add(one)
            second.add(other)
            kept.append((one, other))
    return kept
