"""nDCG@10, MRR@10 and recall by trec_eval's own code (pytrec_eval), and bootstrap intervals over queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.results import TaskScores
from evaluation.retrieval.bm25 import Run
from evaluation.retrieval.tasks import RetrievalTask

RESAMPLES = 2000
SEED = 0


def cut(run: Run, depth: int) -> Run:
    """The best `depth` documents of every query in trec_eval's order: score, then document id, both descending."""
    return {
        query: dict(sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)[:depth])
        for query, scores in run.items()
    }


def mean_interval(samples: Sequence[Sequence[float]], confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over tasks of the mean over queries.

    `samples` holds one sequence of per-query values a task; queries are redrawn within their task, tasks stay. For a
    paired comparison give the differences of two systems on the same queries.
    """
    from scipy.stats import bootstrap

    def statistic(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean([np.mean(part, axis=axis) for part in parts], axis=0)

    arrays = [np.asarray(values, dtype=np.float64) for values in samples]
    assert arrays and all(len(array) > 1 for array in arrays), "a bootstrap needs at least two queries a task"
    result = bootstrap(
        arrays,
        statistic,
        n_resamples=RESAMPLES,
        batch=200,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(result.low), float(result.high)


def score_run(task: RetrievalTask, run: Run) -> TaskScores:
    """All metrics of one system on one task. A query without any retrieved document scores 0."""
    import pytrec_eval

    judgements = {query: {document: 1} for query, document in task.relevant.items()}
    measures = {"ndcg_cut_10", "recall_10", "recall_100"}
    full = pytrec_eval.RelevanceEvaluator(judgements, measures).evaluate(run)
    top = pytrec_eval.RelevanceEvaluator(judgements, {"recip_rank"}).evaluate(cut(run, 10))

    def per_query(results: Mapping[str, Mapping[str, float]], measure: str) -> list[float]:
        return [results.get(query, {}).get(measure, 0.0) for query in task.queries]

    ndcg = per_query(full, "ndcg_cut_10")
    return TaskScores(
        ndcg_10=float(np.mean(ndcg)),
        interval=mean_interval([ndcg]),
        mrr_10=float(np.mean(per_query(top, "recip_rank"))),
        recall_10=float(np.mean(per_query(full, "recall_10"))),
        recall_100=float(np.mean(per_query(full, "recall_100"))) if len(task.documents) > 100 else None,
        per_query=dict(zip(task.queries, ndcg, strict=True)),
    )
