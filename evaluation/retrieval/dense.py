"""Dense retrieval: vectors from a sentence-transformers model, exact search by cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.retrieval.bm25 import Run
from evaluation.retrieval.tasks import RetrievalTask

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def rank_dense(model: SentenceTransformer, task: RetrievalTask, batch_size: int = 64, depth: int = 100) -> Run:
    """The best `depth` documents of every query by cosine; texts are cut to `model.max_seq_length` tokens."""
    from sentence_transformers.util import semantic_search

    ids = list(task.documents)
    model.eval()
    documents = model.encode(
        list(task.documents.values()), batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
    )
    queries = model.encode(list(task.queries.values()), batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False)
    hits = semantic_search(queries, documents, top_k=min(depth, len(ids)))
    return {
        query: {ids[int(hit["corpus_id"])]: float(hit["score"]) for hit in row}
        for query, row in zip(task.queries, hits, strict=True)
    }
