from __future__ import annotations

import math

from evaluation.retrieval.bm25 import K1, B, rank_bm25, terms
from evaluation.retrieval.metrics import score_run
from evaluation.retrieval.tasks import RetrievalTask, TaskSettings, build_tasks


def task(queries: dict[str, str], documents: dict[str, str], relevant: dict[str, str]) -> RetrievalTask:
    return RetrievalTask("t", "t", "s", queries, documents, relevant)


def test_terms_follow_turkish_case_and_the_apostrophe():
    assert terms("IŞIK Işık ışık") == ["ışık"] * 3
    assert terms("İZMİR'e, İzmir’den") == ["izmir", "e", "izmir", "den"]
    assert terms("I\u0307ZMI\u0307R") == ["izmir"]


def test_score_by_hand():
    documents = {"a": "elma armut", "b": "elma elma kiraz üzüm", "c": "nar"}
    run = rank_bm25(task({"q": "elma"}, documents, {"q": "a"}))
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    mean = 7 / 3

    def expected(count: int, length: int) -> float:
        return idf * count / (count + K1 * (1 - B + B * length / mean))

    assert set(run["q"]) == {"a", "b"}, "a document without the term was retrieved"
    ratio = run["q"]["a"] / run["q"]["b"]
    assert abs(ratio - expected(1, 2) / expected(2, 4)) < 1e-5


def test_unknown_words_retrieve_nothing():
    run = rank_bm25(task({"q": "bilinmeyen", "r": "..."}, {"a": "elma", "b": "armut"}, {"q": "a", "r": "b"}))
    assert run == {"q": {}, "r": {}}


def test_exact_duplicates_come_first(test_documents):
    for real in build_tasks(test_documents, TaskSettings())[0]:
        queries = {key: real.documents[key] for key in real.queries}
        copies = task(queries, real.documents, real.relevant)
        assert score_run(copies, rank_bm25(copies)).mrr_10 > 0.99


def test_real_titles_find_their_speech(test_documents):
    real = {item.name: item for item in build_tasks(test_documents, TaskSettings())[0]}["ataturk_title"]
    assert score_run(real, rank_bm25(real)).ndcg_10 > 0.2
