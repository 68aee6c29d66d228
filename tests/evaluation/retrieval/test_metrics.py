from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from evaluation.retrieval.metrics import cut, mean_interval, score_run
from evaluation.retrieval.tasks import RetrievalTask


def make_task(queries: int, documents: int) -> RetrievalTask:
    return RetrievalTask(
        "t", "t", "s",
        {f"d{n}": "q" for n in range(queries)},
        {f"d{n}": "x" for n in range(documents)},
        {f"d{n}": f"d{n}" for n in range(queries)},
    )  # fmt: skip


def run_with_ranks(task: RetrievalTask, ranks: list[int | None]) -> dict[str, dict[str, float]]:
    """A run that puts each query's own document at the given rank (from 1), or not at all."""
    run = {}
    for query, rank in zip(task.queries, ranks, strict=True):
        others = [document for document in task.documents if document != query]
        ranking = others if rank is None else [*others[: rank - 1], query, *others[rank - 1 :]]
        run[query] = {document: 1.0 / (place + 1) for place, document in enumerate(ranking[:100])}
    return run


def test_by_hand():
    task = make_task(4, 150)
    scores = score_run(task, run_with_ranks(task, [1, 3, 20, None]))
    assert scores.ndcg_10 == pytest.approx((1 + 1 / math.log2(4) + 0 + 0) / 4)
    assert scores.mrr_10 == pytest.approx((1 + 1 / 3) / 4), "rank 20 is beyond the cut at 10"
    assert scores.recall_10 == pytest.approx(0.5)
    assert scores.recall_100 == pytest.approx(0.75)
    assert scores.per_query == pytest.approx({"d0": 1, "d1": 0.5, "d2": 0, "d3": 0})


def test_perfect_and_empty_runs():
    task = make_task(5, 20)
    perfect = score_run(task, run_with_ranks(task, [1] * 5))
    assert perfect.ndcg_10 == perfect.mrr_10 == perfect.recall_10 == 1 and perfect.interval == (1, 1)
    assert perfect.recall_100 is None, "20 documents: it would be 1 for everybody"
    assert score_run(task, {}).ndcg_10 == 0


@given(st.lists(st.one_of(st.none(), st.integers(1, 100)), min_size=2, max_size=12))
@hypothesis_settings(max_examples=25)
def test_any_ranks_match_the_formula(ranks):
    task = make_task(len(ranks), 120)
    scores = score_run(task, run_with_ranks(task, ranks))
    near = [rank if rank is not None and rank <= 10 else math.inf for rank in ranks]
    assert scores.ndcg_10 == pytest.approx(np.mean([1 / math.log2(rank + 1) for rank in near]))
    assert scores.mrr_10 == pytest.approx(np.mean([1 / rank for rank in near]))
    assert scores.interval[0] - 1e-9 <= scores.ndcg_10 <= scores.interval[1] + 1e-9


def test_cut_breaks_ties_as_trec_eval_does():
    run = {"q": {"a": 1.0, "c": 1.0, "b": 1.0, "z": 0.5}}
    assert list(cut(run, 2)["q"]) == ["c", "b"]


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        low, high = mean_interval([rng.random(60)])
        covered += low <= 0.5 <= high
    assert 86 <= covered <= 100


def test_interval_of_a_paired_difference():
    rng = np.random.default_rng(1)
    noise = rng.random(200)
    low, high = mean_interval([noise + 0.1 - noise, noise - noise])
    assert low == pytest.approx(0.05) and high == pytest.approx(0.05), "tasks weigh the same; no noise, no width"
    low, high = mean_interval([rng.normal(0, 1, 50)], 0.999)
    narrow_low, narrow_high = mean_interval([rng.normal(0, 1, 50)], 0.5)
    assert high - low > narrow_high - narrow_low


def test_interval_is_deterministic():
    values = np.random.default_rng(2).random(40)
    assert mean_interval([values]) == mean_interval([values])
