from __future__ import annotations

import pytest

from evaluation.results import LeftOut
from evaluation.retrieval.tasks import RetrievalTask, build_task, build_tasks, without_title
from evaluation.settings import TaskSettings
from mecellem.errors import UserError
from preprocessing.corpus.document import Document

BODY = "kelime " * 25


def page(number: int, title: str, text: str = BODY) -> Document:
    return Document(f"libreoffice/{number}", "libreoffice", "x", title, f"{text} {number}")


def entry(number: int, definition: str, example: str) -> Document:
    return Document(f"kenet/{number}", "kenet", "x", "t", "metin", (definition, "başka"), (example, "başka"))


def test_title_lines_leave_the_page_in_turkish_case():
    document = page(1, "Işık Ayarı", "IŞIK AYARI\nIşık ayarı burada yapılır.\nışık ayarı")
    assert without_title(document) == "Işık ayarı burada yapılır.\nışık ayarı 1"


def test_only_unique_long_titles_are_queries_but_all_pages_are_candidates():
    documents = [
        page(1, "Hücre biçimi"),
        page(2, "HÜCRE BİÇİMİ"),
        page(3, "Tek"),
        page(4, "Satır ekleme"),
        page(5, "Kısa sayfa", "az"),
    ]
    documents += [page(number, f"Konu {number}") for number in range(10, 20)]
    task = build_task("libreoffice_title", documents, TaskSettings(min_queries=2, max_queries=50, max_documents=50))
    assert isinstance(task, RetrievalTask)
    assert set(task.queries) == {f"libreoffice/{number}" for number in (4, *range(10, 20))}
    assert set(task.documents) == set(task.queries) | {"libreoffice/1", "libreoffice/2", "libreoffice/3"}
    assert task.relevant == {key: key for key in task.queries}


def test_shared_examples_and_definitions_are_dropped():
    same = "bu örnek iki yerde birden geçiyor"
    documents = [entry(number, f"bir iki üç dört {number}", f"altı yedi sekiz dokuz {number}") for number in range(5)]
    documents += [entry(7, "bir iki üç dört yedi", same), entry(8, "bir iki üç dört sekiz", same.upper().replace("I", "ı"))]
    documents += [entry(9, "çok kısa", "altı yedi sekiz dokuz on")]
    task = build_task("kenet_example", documents, TaskSettings(min_queries=2, max_queries=9, max_documents=9))
    assert set(task.queries) <= {f"kenet/{number}" for number in (*range(5), 7, 8)}
    assert "kenet/9" not in task.documents


def test_caps_keep_the_answers_and_are_deterministic():
    documents = [page(number, f"Konu {number}") for number in range(100)]
    settings = TaskSettings(max_queries=20, max_documents=30, min_queries=5)
    task, again = (
        build_task("libreoffice_title", documents, settings),
        build_task("libreoffice_title", documents[::-1], settings),
    )
    assert task.facts() == again.facts()
    assert (len(task.queries), len(task.documents)) == (20, 30) and set(task.relevant.values()) <= set(task.documents)
    other = build_task("libreoffice_title", documents, TaskSettings(20, 30, 5, task_seed=1))
    assert other.facts().sha256 != task.facts().sha256


def test_small_tasks_are_left_out_with_the_reason():
    left = build_task("libreoffice_title", [page(number, f"Konu {number}") for number in range(7)], TaskSettings())
    assert isinstance(left, LeftOut) and "7 queries" in left.reason and "30" in left.reason
    absent = build_task("ataturk_title", [page(1, "Bir konu")], TaskSettings())
    assert isinstance(absent, LeftOut) and "ataturk" in absent.reason


def test_documents_without_titles_make_no_task():
    assert build_tasks([Document(str(number), "corpus", "x", "", BODY) for number in range(50)], TaskSettings()) == ([], [])


def test_every_source_with_titles_makes_a_task_of_its_own():
    documents = [
        Document(f"{source}/{number}", source, "x", title, f"{title}\n{BODY} {number}")
        for source in ("kanun", "karar")
        for number in range(40)
        for title in [f"Başlık {source} {number}"]
    ]
    documents += [Document(f"kanun/{number}", "kanun", "x", "Aynı başlık", BODY) for number in (41, 42)]
    documents += [Document("tek/1", "tek", "x", "Tek bir belge", BODY), Document("d/1", "düz", "x", "", BODY)]
    tasks, left = build_tasks(documents, TaskSettings())
    assert [(task.name, task.source, len(task.queries)) for task in tasks] == [
        ("kanun_title", "kanun", 40),
        ("karar_title", "karar", 40),
    ]
    assert set(tasks[0].documents) - set(tasks[0].queries) == {"kanun/41", "kanun/42"}
    assert not any(title in tasks[0].documents[key] for key, title in tasks[0].queries.items())
    assert [item.name for item in left] == ["tek_title"]


def test_real_tasks(test_documents):
    tasks, left = build_tasks(test_documents, TaskSettings())
    assert {task.name for task in tasks} == {"ataturk_title", "kenet_example"}
    assert [item.name for item in left] == ["libreoffice_title"]
    for task in tasks:
        assert len(task.queries) >= 30 and set(task.relevant.values()) <= set(task.documents)


@pytest.mark.parametrize("values", [{"max_documents": 10}, {"min_queries": 1}, {"min_queries": 400}])
def test_bad_settings(values):
    with pytest.raises(UserError, match="--m"):
        TaskSettings(**values)
