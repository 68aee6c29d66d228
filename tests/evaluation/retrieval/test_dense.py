from __future__ import annotations

import numpy as np

from evaluation.retrieval.dense import rank_dense
from evaluation.retrieval.metrics import score_run
from evaluation.retrieval.tasks import RetrievalTask, TaskSettings, build_tasks
from post_training.contrastive import mean_pooled


def test_a_retriever_of_copies_is_perfect(small_model, test_documents):
    real = build_tasks(test_documents, TaskSettings(max_queries=40, max_documents=120))[0]
    task = {item.name: item for item in real}["kenet_example"]
    copies = RetrievalTask("t", "t", "s", {key: task.documents[key] for key in task.queries}, task.documents, task.relevant)
    scores = score_run(copies, rank_dense(mean_pooled(small_model, 64, "cpu"), copies))
    assert scores.ndcg_10 == scores.mrr_10 == scores.recall_10 == 1.0


def test_search_is_exact(small_model, test_documents):
    task = build_tasks(test_documents, TaskSettings(max_queries=40, max_documents=120))[0][0]
    model = mean_pooled(small_model, 32, "cpu")
    run = rank_dense(model, task, depth=7)
    documents = model.encode(list(task.documents.values()))
    queries = model.encode(list(task.queries.values()))
    ids = np.array(list(task.documents))
    for query, row in zip(task.queries, queries @ documents.T, strict=True):
        assert len(run[query]) == 7
        best = np.sort(row)[::-1][:7]
        assert np.allclose(sorted(run[query].values(), reverse=True), best, atol=1e-5)
        assert all(abs(row[np.flatnonzero(ids == key)[0]] - value) < 1e-5 for key, value in run[query].items())
