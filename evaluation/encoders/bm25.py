"""BM25, the baseline that any retriever has to beat, by the bm25s library with Turkish words. It ranks and makes no vectors.

k1 = 1.5 and b = 0.75 with Lucene's weighting are bm25s's defaults; the ranges that Robertson and Zaragoza (2009)
recommend are 1.2 to 2 and 0.5 to 0.8. Words are lower-cased by Turkish rules and cut at the apostrophe, so that
"Ankara'da" and "ANKARA" share a term; there is no stemmer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from preprocessing.corpus.clean import words_of

K1 = 1.5
B = 0.75

Run = dict[str, dict[str, float]]  # query id -> document id -> score: what every retriever makes and the metrics read


def terms(text: str) -> list[str]:
    """The terms of a text, in order: maximal runs of letters, digits and underscores, in Turkish lower case."""
    return words_of(unicodedata.normalize("NFC", text))


class Bm25:
    """An index for every call. `name` is what tables call it."""

    def __init__(self, name: str = "bm25") -> None:
        self.name = name

    def rank(self, queries: Mapping[str, str], documents: Mapping[str, str], depth: int = 1000) -> Run:
        """The best `depth` documents of every query (text by id); those that share no term with it are not retrieved."""
        import bm25s

        ids = list(documents)
        words = [terms(text) for text in documents.values()]
        if not any(words) or not queries:
            return {query: {} for query in queries}
        index = bm25s.BM25(k1=K1, b=B, method="lucene")
        index.index(words, show_progress=False)
        asked = [terms(text) for text in queries.values()]
        found, scores = index.retrieve(asked, k=min(depth, len(ids)), show_progress=False)
        return {
            query: {ids[number]: float(score) for number, score in zip(row, row_scores, strict=True) if score > 0}
            for query, row, row_scores in zip(queries, found.tolist(), scores.tolist(), strict=True)
        }
