"""Tasks of the hub: their definitions against mteb's, and their loading from folders in the form of the hub's files."""

from __future__ import annotations

import pytest
from hub_files import fill_cache
from task_scores import score

from evaluation.tasks.facts import GROUPS
from evaluation.tasks.find import find_tasks
from evaluation.tasks.hub_tasks import HUB, HUB_GROUPS, MECELLEM_LEGAL, TR_MTEB
from mecellem.errors import UserError

pytestmark = pytest.mark.usefixtures("arrow_cache")
WORDS = ["kanun", "karar", "sözleşme", "mahkeme", "vergi", "özelge", "dava", "ceza"]


def texts(label, count=16):
    return [f"{WORDS[label]} {WORDS[label]} metin{number}" for number in range(count)]


def labelled(labels=2, count=16, names=None):
    return [
        {"text": text, "label": names[label] if names else label} for label in range(labels) for text in texts(label, count)
    ]


def beir(split="corpus", judged="test", asked="queries", score_type=int):
    corpus = [{"_id": str(number), "title": "", "text": f"{word} hakkında"} for number, word in enumerate(WORDS)]
    queries = [{"_id": f"q{number}", "text": f"{word} nedir"} for number, word in enumerate(WORDS)]
    qrels = [{"query-id": f"q{number}", "corpus-id": str(number), "score": score_type(1)} for number in range(len(WORDS))]
    return {"corpus": {split: corpus}, "queries": {asked: queries}, "default": {judged: qrels}}


def parts_of(task):
    """A data set of the task's form that an encoder of words solves."""
    pairs = [{"one": f"{word} a", "two": f"{word} b", "labels": 1} for word in WORDS]
    pairs += [{"one": f"{word} a", "two": f"{WORDS[number - 1]} b", "labels": 0} for number, word in enumerate(WORDS)]
    if task.category == "retrieval":
        return beir("train", "train", "train") if task in MECELLEM_LEGAL else beir()
    if task.category == "bitext":
        return {"default": {"test": [{"sentence1": f"{word} x", "sentence2": f"{word} y"} for word in WORDS]}}
    if task.category == "pair":
        rows = [{"sent1": row["one"], "sent2": row["two"], "labels": row["labels"]} for row in pairs]
        return {"default": dict.fromkeys(task.splits, rows)}
    if task.category == "sts":
        rows = [{"sentence1": row["one"], "sentence2": row["two"], "score": 5.0 * row["labels"]} for row in pairs]
        return {"default": {"test": rows}}
    if task.category == "clustering":
        rows = [{"sentences": texts(0) + texts(1), "labels": ["a"] * 16 + ["b"] * 16}] * 2
        return {"default": {"test": rows}}
    if task.form == "halves":
        return {"default": {"test": labelled(names=["olumlu", "olumsuz"])}}
    return {"default": {"train": labelled(), "test": labelled(count=4)}}


def of_mteb(task):
    """The same for the four that are mteb's own."""
    if task.name.startswith("Turkish"):
        return {"default": {"train": labelled(), "test": labelled(count=4)}}
    if task.name == "XQuADRetrieval":
        parts = beir(judged="validation", split="validation", asked="validation")
        return {f"tr-{'qrels' if name == 'default' else name}": splits for name, splits in parts.items()}
    rows = [{"premise": f"{word} a", "hypothesis": f"{word} b", "label": 0} for word in WORDS]
    rows += [{"premise": f"{word} a", "hypothesis": f"{WORDS[number - 1]} b", "label": 2} for number, word in enumerate(WORDS)]
    rows += [{"premise": "a", "hypothesis": "b", "label": 1}]
    return {"tr": dict.fromkeys(("test", "validation"), rows)}


@pytest.mark.parametrize("task", [*TR_MTEB, *MECELLEM_LEGAL], ids=lambda task: task.name)
def test_every_task_is_read_from_the_hubs_files_and_scored(task, tmp_path, encoder):
    fill_cache(tmp_path, task, of_mteb(task) if task.form == "mteb" else parts_of(task))
    (opened,) = find_tasks([task.name], cache=tmp_path)
    assert opened.metadata.name == opened.facts.name == task.name
    assert opened.metadata.revision == opened.facts.revision == "c" * 40
    assert list(opened.eval_splits) == list(task.splits)
    assert opened.metadata.main_score == task.main_metric
    for split in task.splits:
        scores = score(opened, encoder, split)
        assert scores["main_score"] == scores[task.main_metric] > (0.8 if task.category == "sts" else 0.95)  # ties


@pytest.mark.parametrize("task", [task for task in HUB.values() if task.form == "mteb"], ids=lambda task: task.name)
def test_what_is_written_of_mtebs_own_tasks_is_what_mteb_has(task):
    import mteb

    found = mteb.get_task(task.mteb_name or task.name, languages=["tur"])
    assert (found.metadata.dataset["path"], found.metadata.dataset["revision"]) == (task.repo, task.revision)
    assert found.metadata.main_score == task.main_metric
    assert set(task.splits) <= set(found.metadata.eval_splits)
    assert list(found.hf_subsets) == [task.subset]
    kinds = {"pair": "PairClassification", "sts": "STS"}
    assert found.metadata.type == kinds.get(task.category, task.category.title())


def test_groups_are_as_large_as_their_means_say():
    assert {name: len(tasks) for name, tasks in HUB_GROUPS.items()} == {"tr-mteb": 26, "mecellem-legal": 3, "mizan": 14}
    for name, tasks in HUB_GROUPS.items():
        assert f"({len(tasks)} tasks)" in GROUPS[name].mean
    categories = [task.category for task in TR_MTEB]
    assert {category: categories.count(category) for category in set(categories)} == {
        "bitext": 1, "classification": 8, "clustering": 2, "pair": 3, "sts": 1, "retrieval": 11,
    }  # fmt: skip


def test_a_sampled_task_keeps_2048_judgements_and_the_last_one_of_a_query(tmp_path):
    task = HUB["NFCorpusTR"]
    corpus = [{"_id": f"d{number}", "title": "başlık", "text": f"metin {number}"} for number in range(3000)]
    queries = [{"_id": f"q{number}", "text": f"soru {number}"} for number in range(100)]
    qrels = [{"query-id": f"q{number % 100}", "corpus-id": f"d{number}", "score": number % 2} for number in range(3000)]
    fill_cache(tmp_path, task, {"corpus": {"corpus": corpus}, "queries": {"queries": queries}, "default": {"test": qrels}})
    (opened,) = find_tasks([task.name], cache=tmp_path)
    opened.load_data()
    data = opened.dataset["default"]["test"]
    assert len(data["corpus"]) == 2048 and len(data["queries"]) == 100
    assert all(len(judged) == 1 for judged in data["relevant_docs"].values())
    assert set(data["corpus"].column_names) == {"id", "text"}  # titles are not read

    import datasets

    drawn = datasets.Dataset.from_list(qrels).shuffle(seed=42).select(range(2048))
    last = {row["query-id"]: row["corpus-id"] for row in drawn}
    assert {query: next(iter(judged)) for query, judged in data["relevant_docs"].items()} == last


def test_data_with_one_split_are_halved_by_label(tmp_path):
    task = HUB["THYSentimentClassification"]
    fill_cache(tmp_path, task, {"default": {"test": labelled(names=["olumlu", "olumsuz"], count=20)}})
    (opened,) = find_tasks([task.name], cache=tmp_path)
    opened.load_data()
    assert (len(opened.dataset["train"]), len(opened.dataset["test"])) == (32, 8)
    assert sorted(opened.dataset["test"]["label"]) == [0] * 4 + [1] * 4


def test_titles_stand_in_front_of_the_texts_of_legal_documents(tmp_path, encoder):
    task = HUB["TurkishLegalQA"]
    parts = parts_of(task)
    for row, word in zip(parts["corpus"]["train"], WORDS, strict=True):
        row |= {"title": word, "text": "aynı madde", "docName": "x"}
    fill_cache(tmp_path, task, parts)
    (opened,) = find_tasks([task.name], cache=tmp_path)
    assert score(opened, encoder, "train")["ndcg_at_10"] == 1


JUDGED = beir()["default"]["test"]
SIMILAR = [{"sentence1": "a", "sentence2": "b", "score": 1.0}]
WRONG = [{"metin": "a", "label": 1}]


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("TurkishNewsCategoryClassification", {"default": {"train": WRONG, "test": WRONG}}, "has no column text, but metin"),
        ("TurkishNewsCategoryClassification", {"default": {"train": labelled(), "test": WRONG}}, "cannot be read as this task"),
        ("STSbTR", {"default": {"train": SIMILAR}}, "no split 'test', but 'train'"),
        ("MnliTr", {"default": {"test_matched": [{"sent1": "a", "sent2": "b", "labels": 1}]}}, "no split 'test_mismatched'"),
        ("SciFactTR", {**beir(), "default": {"dev": JUDGED}}, "no split 'test' of judgements, but 'dev'"),
        ("Turkish75NewsClassification", {"default": {"train": labelled()}}, "cannot be read as this task"),
        ("TQuadRetrieval", {"default": {"a": JUDGED, "b": JUDGED}}, "Split test not found"),
    ],
)
def test_data_that_are_unlike_their_description_are_told_by_name(name, parts, message, tmp_path):
    fill_cache(tmp_path, HUB[name], parts)
    (opened,) = find_tasks([name], cache=tmp_path)
    with pytest.raises(UserError, match=f"{name}: .*{message}"):
        opened.load_data()
