"""Tasks from a corpus folder's test split."""

from __future__ import annotations

import json
import threading
import time

import pytest
from task_scores import score

from evaluation.results import LeftOut
from evaluation.tasks.content import Content
from evaluation.tasks.corpus import build_task
from evaluation.tasks.find import Tasks, find_tasks
from evaluation.tasks.pools import dictionary_examples, titled_texts, without_title
from evaluation.tasks.settings import CorpusTaskSettings
from evaluation.tasks.store import made_once, read_manifest, read_table, write_task
from mecellem.errors import UserError
from preprocessing.corpus.document import Document

BODY = "kelime " * 25


def page(number: int, title: str, text: str = BODY, source: str = "libreoffice") -> Document:
    return Document(f"{source}/{number}", source, "x", title, f"{text} {number}")


def entry(number: int, definition: str, example: str) -> Document:
    return Document(f"kenet/{number}", "kenet", "x", "t", "metin", (definition, "başka"), (example, "başka"))


def write_corpus(folder, documents):
    folder.mkdir(exist_ok=True)
    (folder / "test.jsonl").write_bytes(b"".join(document.as_line() for document in documents))
    return folder


def test_the_title_is_not_in_the_text_in_whatever_case():
    assert without_title("Işık Hızı", "IŞIK HIZI\nIşık hızı sabittir.\n  ışık hızı ") == "Işık hızı sabittir."


def test_titles_that_are_unique_and_long_are_queries_and_every_long_text_is_a_candidate():
    documents = [
        page(1, "Yeni Konu"),
        page(2, "Aynı konu"),
        page(3, "AYNI KONU"),
        page(4, "Tek"),
        page(5, "Kısa bir metin", "az"),
    ]
    queries, candidates = titled_texts(documents)
    assert queries == {"libreoffice/1": "Yeni Konu"}
    assert set(candidates) == {f"libreoffice/{number}" for number in (1, 2, 3, 4)}


def test_definitions_and_examples_that_several_entries_share_are_dropped():
    same = "Işık bir iki üç dört"
    documents = [entry(number, f"bir iki üç dört {number}", f"beş altı yedi sekiz {number}") for number in range(3)]
    documents += [entry(7, "bir iki üç dört yedi", same), entry(8, "bir iki üç dört sekiz", "IŞIK BİR İKİ ÜÇ DÖRT")]
    documents += [entry(9, "çok kısa", "altı yedi sekiz dokuz on")]
    queries, examples = dictionary_examples(documents)
    assert set(queries) == set(examples) == {"kenet/0", "kenet/1", "kenet/2"}


def test_caps_keep_the_answers_and_do_not_depend_on_the_order():
    documents = [page(number, f"Konu {number}") for number in range(100)]
    settings = CorpusTaskSettings(max_queries=20, max_documents=30, min_queries=5)
    task, again = (build_task("libreoffice_title", part, settings) for part in (documents, documents[::-1]))
    assert task == again
    assert (task.items, task.documents) == (20, 30)
    assert {row["corpus-id"] for row in task.tables["qrels"]} <= {row["id"] for row in task.tables["corpus"]}
    other = build_task("libreoffice_title", documents, CorpusTaskSettings(20, 30, 5, task_seed=1))
    assert other != task


def test_small_tasks_are_left_out_with_the_reason(tmp_path):
    left = build_task("libreoffice_title", [page(number, f"Konu {number}") for number in range(7)], CorpusTaskSettings())
    assert isinstance(left, LeftOut) and "7 queries" in left.reason and "30" in left.reason
    documents = [page(number, f"Konu başlığı {number}", source="kanun") for number in range(40)]
    documents += [page(number, f"Öbür başlık {number}", source="karar") for number in range(7)]
    corpus = write_corpus(tmp_path / "corpus", documents)
    tasks = Tasks(["corpus"], corpus=corpus, cache=tmp_path)
    assert [facts.name for facts in tasks.found.facts] == ["kanun_title"]
    assert [item.name for item in tasks.found.left_out] == ["karar_title"]
    with pytest.raises(UserError, match=r"karar_title cannot be built .*: 7 queries"):
        Tasks(["karar_title"], corpus=corpus, cache=tmp_path)


def test_every_source_with_titles_makes_a_task_that_mteb_scores(tmp_path, encoder, capsys):
    documents = [
        Document(f"{source}/{number}", source, "x", f"{source}{number} başlığı", f"{source}{number} {BODY}")
        for source in ("kanun", "bölge/karar")
        for number in range(40)
    ]
    documents += [page(number, "Aynı başlık", source="kanun") for number in (41, 42)]
    documents += [page(1, "Tek bir belge", source="tek"), Document("d/1", "düz", "x", "", BODY)]
    corpus = write_corpus(tmp_path / "corpus", documents)
    tasks = find_tasks(["corpus"], corpus=corpus, cache=tmp_path / "cache")
    assert [(task.metadata.name, task.facts.items, task.facts.documents) for task in tasks] == [
        ("bölge/karar_title", 40, 40),
        ("kanun_title", 40, 42),
    ]
    assert "tek_title is left out: 1 queries" in capsys.readouterr().out
    for task in tasks:
        assert score(task, encoder)["ndcg_at_10"] > 0.9  # a number in the title stands in the text
        assert set(task.dataset["default"]["test"]) == {"corpus", "queries", "relevant_docs", "top_ranked"}


def test_a_corpus_without_titles_is_refused_in_one_sentence(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [Document(str(number), "a", "x", "", BODY) for number in range(50)])
    with pytest.raises(UserError, match=r'no task of the group corpus can be had.*no document of the test split has a "title"'):
        Tasks(["corpus"], corpus=corpus, cache=tmp_path)
    with pytest.raises(UserError, match="add --corpus"):
        Tasks(["corpus"], corpus=None, cache=tmp_path)


def test_ids_that_are_there_twice_are_refused_with_their_line(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"id": "a", "title": "b c", "text": "x"}\n{"id": "a", "title": "b d", "text": "y"}\n')
    with pytest.raises(UserError, match=r"test\.jsonl, line 2: line 1 has the same id 'a'"):
        Tasks(["corpus"], corpus=tmp_path, cache=tmp_path)


def rows(**changes):
    tables = {
        "corpus": [{"id": "d1", "text": "bir iki"}, {"id": "d2", "text": ""}],
        "queries": [{"id": "q1", "text": "bir"}],
        "qrels": [{"query-id": "q1", "corpus-id": "d1", "score": 1}],
    }
    return Content("Deneme", "x", "retrieval", ("tur-Latn",), "x", "x", tables | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": [{"id": "d1", "text": "a"}, {"id": "d1", "text": "b"}]}, "1 ids of documents are there more than once"),
        ({"queries": [{"id": "q1", "text": "a"}] * 2}, "1 ids of queries are there more than once"),
        ({"qrels": [{"query-id": "q1", "corpus-id": "d9", "score": 1}]}, r"1 judged documents are not in the corpus \('d9'\)"),
        ({"qrels": [{"query-id": "q1", "corpus-id": "d1", "score": 0}]}, r"1 queries have no relevant document \('q1'\)"),
    ],
)
def test_a_task_that_contradicts_itself_is_not_stored(tmp_path, changes, message):
    with pytest.raises(UserError, match=f"Deneme: {message}"):
        write_task(tmp_path, rows(**changes))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_document_is_a_candidate_like_any_other(tmp_path, encoder):
    from evaluation.tasks.stored_mteb import open_stored

    write_task(tmp_path, rows())
    task = open_stored(tmp_path, read_manifest(tmp_path).facts)
    assert score(task, encoder)["ndcg_at_10"] == 1
    assert task.dataset["default"]["test"]["corpus"]["text"] == ["bir iki", ""]


@pytest.mark.parametrize("damage", ["{", json.dumps({"format": "mecellem.task/0"})])
def test_a_manifest_that_cannot_be_read_counts_as_absent(tmp_path, damage):
    write_task(tmp_path, rows())
    assert read_manifest(tmp_path) and len(read_table(tmp_path, "corpus")) == 2
    (tmp_path / "task.json").write_text(damage)
    assert read_manifest(tmp_path) is None


def test_of_two_that_make_a_task_at_once_one_makes_it(tmp_path):
    folder, second_started = tmp_path / "task", threading.Event()
    made = []

    def whole(path):
        return (path / "who").is_file() and (path / "who").read_text()

    def slow(temporary):
        second_started.set()
        time.sleep(0.2)
        made.append("slow")
        (temporary / "who").write_text("slow")

    def quick(temporary):
        made.append("quick")

    first = threading.Thread(target=made_once, args=(folder, whole, slow))
    first.start()
    assert second_started.wait(10)
    made_once(folder, whole, quick)
    first.join(10)
    assert whole(folder) == "slow" and made == ["slow"]
    assert [path.name for path in tmp_path.iterdir()] == ["task"]


def test_the_validation_split_makes_tasks_of_its_own(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [page(number, f"Konu başlığı {number}", source="kanun") for number in range(40)])
    others = [page(number, f"Öbür başlık {number}", source="kanun") for number in range(100, 135)]
    others += [page(number, f"Az başlık {number}", source="karar") for number in range(5)]
    (corpus / "validation.jsonl").write_bytes(b"".join(document.as_line() for document in others))
    settings = CorpusTaskSettings(split="validation")
    tasks = Tasks(["corpus"], corpus=corpus, cache=tmp_path, settings=settings)
    (facts,) = tasks.found.facts
    (on_test,) = Tasks(["corpus"], corpus=corpus, cache=tmp_path).found.facts
    assert (facts.name, facts.items, on_test.items) == ("kanun_title", 35, 40) and facts.revision != on_test.revision
    assert tasks.found.left_out == (
        LeftOut(name="karar_title", reason="5 queries in the validation split, at least 30 are asked for"),
    )


def test_a_group_of_which_nothing_can_be_had_may_be_empty(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [Document(str(number), "a", "x", "", BODY) for number in range(50)])
    found = Tasks(["corpus"], corpus=corpus, cache=tmp_path, may_be_empty=True).found
    assert found.facts == () and 'no document of the test split has a "title"' in found.left_out[0].reason


def test_the_sample_corpus_has_its_two_tasks(sample_corpus, tmp_path):
    tasks = Tasks(["corpus"], corpus=sample_corpus, cache=tmp_path)
    assert [facts.name for facts in tasks.found.facts] == ["ataturk_title", "kenet_example"]
    assert [item.name for item in tasks.found.left_out] == ["libreoffice_title"]
    assert all(facts.items >= 30 for facts in tasks.found.facts)


@pytest.mark.parametrize("values", [{"max_documents": 10}, {"min_queries": 1}, {"min_queries": 400}])
def test_bad_task_sizes(values):
    with pytest.raises(UserError, match="--m"):
        CorpusTaskSettings(**values)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LibreOfficeHelpRetrival", "did you mean LibreOfficeHelpRetrieval"),
        ("tr_mteb", "did you mean tr-mteb"),
        ("ataturkspeechretrieval", "did you mean AtaturkSpeechRetrieval"),
        ("qqq", "groups are local, corpus, tr-mteb"),
    ],
)
def test_an_unknown_name_is_told_with_those_near_it(tmp_path, name, message):
    with pytest.raises(UserError, match=f"'{name}' is no task and no group of tasks: {message}"):
        find_tasks([name], corpus=tmp_path / "absent", cache=tmp_path)
