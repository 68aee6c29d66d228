"""Downloading what tasks read, from a hub on this machine, through the real command in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hub_files import write_data_set
from hub_server import COMMIT, serve_hub

from evaluation.tasks.find import Tasks
from evaluation.tasks.hub import find_snapshot
from evaluation.tasks.hub_tasks import HUB
from evaluation.tasks.prefetch import _names, main
from mecellem.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
COMMAND = """
import sys
from evaluation.tasks.prefetch import main
from mecellem.errors import UserError
try:
    main(sys.argv[1:])
except UserError as error:
    sys.exit(f"mecellem: {error}")
"""

LOAD = """
import sys
from pathlib import Path
from evaluation.tasks import find_tasks
(task,) = find_tasks(["TQuadRetrieval"], cache=Path(sys.argv[1]))
task.load_data()
print(task.metadata.revision, len(task.dataset["default"]["test"]["corpus"]))
"""


def beir(count=4):
    return {
        "corpus": {"corpus": [{"_id": f"d{number}", "title": "", "text": f"metin {number}"} for number in range(count)]},
        "queries": {"queries": [{"_id": f"q{number}", "text": f"soru {number}"} for number in range(count)]},
        "default": {"test": [{"query-id": f"q{number}", "corpus-id": f"d{number}", "score": 1} for number in range(count)]},
    }


def similarities():
    return {"default": {"test": [{"sentence1": "a", "sentence2": "b", "score": 2.5}]}}


@pytest.fixture
def hub(tmp_path):
    repos = {}
    for repo, parts in {
        "trmteb/tquad": beir(),
        "trmteb/stsb-tr": similarities(),
        "mteb/xnli": {
            language: {
                split: [{"premise": "a", "hypothesis": language, "label": label} for label in (0, 1, 2)]
                for split in ("test", "validation")
            }
            for language in ("ar", "de", "tr")
        },
    }.items():
        repos[repo] = tmp_path / "repos" / repo
        repos[repo].mkdir(parents=True)
        write_data_set(repos[repo], parts)
    with serve_hub(repos) as served:
        yield served


def prefetch(environment, cache, *tasks):
    command = [sys.executable, "-c", COMMAND, "--tasks", *tasks, "--cache", str(cache)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_what_arrived_is_listed_and_not_fetched_again(hub, tmp_path):
    server, environment = hub
    cache = tmp_path / "cache"
    done = prefetch(environment, cache, "TQuadRetrieval", "STSbTR")
    assert done.returncode == 0, done.stderr
    assert f"TQuadRetrieval: 0.0 MB, trmteb/tquad at {COMMIT[:7]}" in done.stdout
    assert "2 of 2 tasks are here" in done.stdout
    first = len(server.downloads)
    again = prefetch(environment, cache, "TQuadRetrieval", "STSbTR")
    assert again.returncode == 0 and again.stdout.count("was here already") == 2
    assert len(server.downloads) == first
    assert "it/s" not in done.stderr  # no progress bars in a job's log
    # and it is all that another machine needs, with the hub switched off
    offline = environment | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD, str(cache)]
    loaded = subprocess.run(command, cwd=ROOT, env=offline, capture_output=True, text=True, timeout=120)
    assert loaded.stdout.split() == [COMMIT, "4"], loaded.stderr


def test_an_interrupted_download_goes_on_where_it_was(hub, tmp_path):
    server, environment = hub
    cache = tmp_path / "cache"
    server.broken.add("queries/queries-00000-of-00001.parquet")
    done = prefetch(environment, cache, "TQuadRetrieval", "STSbTR")
    assert done.returncode == 1
    assert "mecellem: 1 of 2 tasks could not be fetched (TQuadRetrieval): run the same command again" in done.stderr
    assert "STSbTR: 0.0 MB" in done.stdout
    assert find_snapshot(cache, "trmteb/tquad", "main") is None
    server.broken.clear()
    server.downloads.clear()
    assert prefetch(environment, cache, "TQuadRetrieval", "STSbTR").returncode == 0
    assert "corpus/corpus-00000-of-00001.parquet" not in server.downloads
    assert "queries/queries-00000-of-00001.parquet" in server.downloads
    snapshot, folder = find_snapshot(cache, "trmteb/tquad", "main")
    assert snapshot.bytes == sum((folder / name).stat().st_size for name in snapshot.files)


def test_of_a_data_set_of_many_languages_only_turkish_is_fetched(hub, tmp_path, arrow_cache):
    server, environment = hub
    cache = tmp_path / "cache"
    assert prefetch(environment, cache, "XNLI").returncode == 0
    fetched = [name for name in server.downloads if name.endswith(".parquet")]
    assert sorted(fetched) == ["tr/test-00000-of-00001.parquet", "tr/validation-00000-of-00001.parquet"]
    tasks = Tasks(["XNLI"], corpus=None, cache=cache)
    task = tasks.open(tasks.found.facts[0])
    task.load_data()  # though README.md also names files that are not here
    assert list(task.dataset["tr"]["test"][0]["sentence2"]) == ["tr", "tr"]


def test_a_changed_file_counts_as_missing(hub, tmp_path):
    _, environment = hub
    cache = tmp_path / "cache"
    assert prefetch(environment, cache, "STSbTR").returncode == 0
    _, folder = find_snapshot(cache, "trmteb/stsb-tr", "main")
    next(folder.glob("data/*.parquet")).write_bytes(b"")
    assert find_snapshot(cache, "trmteb/stsb-tr", "main") is None


def test_without_a_network_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    message = (
        r"^the data set trmteb/stsb-tr cannot be downloaded \(ConnectionError: no route to host\), and .*hub does not have it: "
        r"run `mecellem evaluate prefetch --tasks STSbTR --cache .*` where there is internet and copy that folder here$"
    )
    with pytest.raises(UserError, match=message):
        Tasks(["STSbTR"], corpus=None, cache=tmp_path)
    with pytest.raises(UserError, match="no task of the group mecellem-legal can be had here, TurkishLegalQA for one"):
        Tasks(["mecellem-legal"], corpus=None, cache=tmp_path)


def test_of_a_group_that_is_partly_here_the_rest_is_left_out(tmp_path, monkeypatch):
    import huggingface_hub
    from hub_files import fill_cache

    def unreachable(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    fill_cache(tmp_path, HUB["TurkishTaxRulings"], beir())
    found = Tasks(["mecellem-legal"], corpus=None, cache=tmp_path).found
    assert [facts.name for facts in found.facts] == ["TurkishTaxRulings"]
    assert [item.name for item in found.left_out] == ["TurkishLegalQA", "TurkishCourtOfCassation"]


def test_local_tasks_are_built_so_that_no_package_is_needed_later(packages, tmp_path, capsys):
    cache = tmp_path / "cache"
    assert main(["--tasks", "ContractBitextMining", "AtaturkSpeechRetrieval", "--cache", str(cache)]) == 0
    assert "ContractBitextMining: 0.0 MB, contract" in capsys.readouterr().out
    packages["ibm-db"] = UserError("not fetched again")
    assert len(Tasks(["ContractBitextMining"], corpus=None, cache=cache).found.facts) == 1


def test_names_are_looked_at_before_anything_is_fetched():
    assert len(_names(["tr-mteb", "mecellem-legal", "STSbTR"])) == 29
    with pytest.raises(UserError, match=r"--tasks trmteb: no task and no group of that name; did you mean tr-mteb"):
        _names(["local", "trmteb"])
    with pytest.raises(UserError, match="own corpus folder"):
        _names(["corpus"])
