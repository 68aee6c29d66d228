"""The figures of `benchmarks/distill_e5.py`: what counts as held out, how sure a share is, and what is made once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from evaluation.leaderboard.results import TaskResult

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from distill_e5 import Recipe, Student, Workshop
from distill_e5_scores import BITEXT, Models, held_out, lengths, mean, share_interval, turkish_rate
from distill_texts import learn_and_test, prompted

RETRIEVAL = "LibreOfficeHelpRetrieval"


def result(task, items):
    return TaskResult(
        task=task, category="retrieval", revision="1", main_metric="ndcg_at_10", main_score=0.5, metrics={},
        per_item_metric="ndcg_at_10", per_item={"default": items}, interval=None, items=len(items), texts=1, empty=0,
        truncated=0, tokens_cut=0, seconds=1.0, hardware="",
    )  # fmt: skip


def test_only_queries_of_the_test_split_count_and_every_pair_of_texts_that_nothing_was_learned_from():
    tasks = {RETRIEVAL: result(RETRIEVAL, {"a": 1.0, "b": 0.0}), BITEXT[0]: result(BITEXT[0], {"0": 1.0, "1": 0.5})}
    found = held_out(tasks, {"a"})
    assert found == {RETRIEVAL: {"a": 1.0}, BITEXT[0]: {"0": 1.0, "1": 0.5}}
    assert mean(found) == pytest.approx((1.0 + 0.75) / 2)
    with pytest.raises(AssertionError, match="no item of the test split"):
        held_out(tasks, {"c"})


def test_a_share_of_the_teachers_score_and_how_sure_it_is():
    teacher = {"x": {str(n): float(n % 2) for n in range(200)}, "y": {str(n): 1.0 for n in range(20)}}
    assert share_interval(teacher, teacher) == (1.0, 1.0)
    half = {task: {item: value * (int(item) % 4 != 1) for item, value in items.items()} for task, items in teacher.items()}
    low, high = share_interval(half, teacher)
    assert low < mean(half) / mean(teacher) < high < 1 and high - low < 0.3


def test_the_speed_of_turkish_texts_has_as_many_of_each_source():
    rates = {"kenet": 100.0, "ataturk": 10.0, "libreoffice_en": 1.0, "wordnet_en": 1.0}
    assert turkish_rate(rates) == pytest.approx(2 / (1 / 100 + 1 / 10))


def test_the_main_student_is_the_first_and_students_with_other_settings_have_other_folders(tmp_path, monkeypatch):
    import distill_e5

    monkeypatch.setattr(distill_e5, "FOLDER", tmp_path)
    assert Models({"teacher": tmp_path, "student_0": tmp_path}, {}, {}).main == "student_0"
    one, other = (Workshop(Recipe(32, texts, 1.0, 8, 1e-4)) for texts in (10, 20))
    assert one.folder != other.folder
    made = []

    def work(target):
        made.append(target)
        target.mkdir()

    assert one.make("a", work) == one.make("a", work) == one.folder / "a"
    assert made == [one.folder / "a"] and list(one.seconds()) == ["a"]
    assert Student("t", 32, method="omp").clone == "clone_joint_32_omp"


def test_texts_are_prompted_and_drawn_by_hash(tmp_path):
    short, long = ({"text": text, "lang": "tr", "source": "kenet"} for text in ("kısa", "uzun bir metin " * 5))
    assert prompted(short)["text"] == "query: kısa" and prompted(long)["text"].split(":")[0] in ("query", "passage")
    rows = {name: [{"text": f"{name} {n}", "lang": "tr", "source": "ataturk"} for n in range(9)] for name in ("tr", "en")}
    for name, found in rows.items():
        held = [{**row, "text": f"held out {row['text']}"} for row in found[1:]]
        for prefix, written in (("", found), ("test_", [found[0], *held])):
            (tmp_path / f"{prefix}{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    learn, test, encoded = learn_and_test(tmp_path, tmp_path, 5)
    assert len(learn.read_text().splitlines()) == 16 and all(": " in row["text"] for row in encoded) and len(encoded) == 5
    assert json.loads(test.read_text().splitlines()[0])["text"] == "tr 0"
    learned = {json.loads(line)["text"].split(": ", 1)[1] for line in learn.read_text().splitlines()}
    assert not learned & {"tr 0", "en 0"}, "a title that stands in a document of the test split, too"


def test_all_models_read_as_many_words(tmp_path):
    """At the same number of tokens, who has fewer a word reads more of the texts, of which half are cut."""
    figures = {"main": (1.5, 1.6), "used": (2.1, 1.6)}
    for name, (turkish, english) in figures.items():
        (tmp_path / name).mkdir()
        found = {
            language: {"before": {"tokens_per_word": before}, "after": {"tokens_per_word": after}}
            for language, before, after in (("tr", 2.1, turkish), ("en", 1.7, english))
        }
        (tmp_path / name / "graft.json").write_text(json.dumps({"languages": found}))
    names = ("teacher", "student_0", "student_1")
    tokenizers = {"student_0": tmp_path / "main", "student_1": tmp_path / "used"}
    models = Models(dict.fromkeys(names, tmp_path), {}, tokenizers)
    assert lengths(models, 64, 0) == {"teacher": 90, "student_0": 64, "student_1": 90}
    assert lengths(models, 64, 1) == {"teacher": 68, "student_0": 64, "student_1": 64}
