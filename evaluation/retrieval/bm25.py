"""BM25, the baseline that any retriever has to beat, by the bm25s library with Turkish words.

k1 = 1.5 and b = 0.75 with Lucene's weighting are bm25s's defaults; the ranges that Robertson and Zaragoza (2009)
recommend are 1.2 to 2 and 0.5 to 0.8. Words are lower-cased by Turkish rules and cut at the apostrophe, so that
"Ankara'da" and "ANKARA" share a term; there is no stemmer.
"""

from __future__ import annotations

import unicodedata

from evaluation.retrieval.tasks import RetrievalTask
from preprocessing.corpus.clean import words_of

K1 = 1.5
B = 0.75

# query id -> document id -> score; what every retriever makes and the metrics read
Run = dict[str, dict[str, float]]


def terms(text: str) -> list[str]:
    """The terms of a text, in order: maximal runs of letters, digits and underscores, in Turkish lower case."""
    return words_of(unicodedata.normalize("NFC", text))


def rank_bm25(task: RetrievalTask, depth: int = 100) -> Run:
    """The best `depth` documents of every query; documents that share no term with it are not retrieved at all."""
    import bm25s

    ids = list(task.documents)
    index = bm25s.BM25(k1=K1, b=B, method="lucene")
    index.index([terms(text) for text in task.documents.values()], show_progress=False)
    found, scores = index.retrieve([terms(text) for text in task.queries.values()], k=min(depth, len(ids)), show_progress=False)
    return {
        query: {ids[number]: float(score) for number, score in zip(row, row_scores, strict=True) if score > 0}
        for query, row, row_scores in zip(task.queries, found.tolist(), scores.tolist(), strict=True)
    }
