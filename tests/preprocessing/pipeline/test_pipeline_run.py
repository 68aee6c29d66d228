import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import mecellem, refusal
from pipeline_runs import Killed, documents, jsonl_source, lines_of, outputs, sentences, set_aside, write_corpus, write_jsonl

from mecellem.errors import UserError
from preprocessing.pipeline.run import run

STAGES = [{"exact_dedup": {}}]


@pytest.fixture
def corpus(tmp_path):
    """Two sources in several shards; texts 0 to 9 of the second stand in the first as well, with other white space."""
    first = write_jsonl(tmp_path / "first.jsonl", map(sentences, range(60)))
    second = write_jsonl(
        tmp_path / "second.jsonl", [*(f" {sentences(n)} " for n in range(10)), *map(sentences, range(100, 130))]
    )
    sources = [jsonl_source(first, name="first"), jsonl_source(second, name="second", licence="MIT")]
    return write_corpus(tmp_path / "corpus.yaml", sources, STAGES, shard_size="4KB")


def stage(corpus, name):
    return corpus.parent / "out" / "stages" / name


def test_a_run_reads_sources_and_keeps_the_first_of_equal_documents(corpus, capsys):
    run(corpus, workers=2)
    read, kept = documents(stage(corpus, "00_read")), documents(stage(corpus, "01_exact_dedup"))
    assert len(read) == 100
    assert [document["text"] for document in kept] == [sentences(n) for n in [*range(60), *range(100, 130)]]
    assert len(list((stage(corpus, "00_read") / "shards").iterdir())) > 4
    for number, document in enumerate(read[:60]):
        assert document["origin"] == f"{corpus.parent / 'first.jsonl'}:{number + 1}"
        assert document["id"] == f"first/0/{number + 1}"
        assert (document["source"], document["licence"]) == ("first", "CC0-1.0")
    ledger = json.loads((stage(corpus, "01_exact_dedup") / "ledger.json").read_text())
    assert ledger["sources"]["second"]["dropped"]["exact_duplicate"]["documents"] == 10
    assert ledger["sources"]["second"]["kept"]["documents"] == 30
    assert ledger["sources"]["first"]["kept"]["words"] == sum(len(sentences(n).split()) for n in range(60))
    assert len(ledger["examples"]["exact_duplicate"]) == 5
    assert "10 dropped (exact_duplicate 10)" in capsys.readouterr().out
    before = outputs(corpus.parent / "out")
    run(corpus, workers=1)
    assert "exact_dedup      done already" in capsys.readouterr().out
    assert outputs(corpus.parent / "out") == before


def test_other_settings_redo_the_stage_and_those_after_it_and_say_so(corpus, capsys):
    run(corpus, workers=1)
    marks = {name: (stage(corpus, name) / "done.json").stat().st_mtime_ns for name in ("00_read", "01_exact_dedup")}
    corpus.write_text(corpus.read_text().replace("exact_dedup: {}", "exact_dedup: {normalize: false}"))
    capsys.readouterr()
    run(corpus, workers=1)
    assert "the settings of exact_dedup changed (normalize): removed 01_exact_dedup" in capsys.readouterr().out
    assert (stage(corpus, "00_read") / "done.json").stat().st_mtime_ns == marks["00_read"]
    assert len(documents(stage(corpus, "01_exact_dedup"))) == 100
    write_jsonl(corpus.parent / "second.jsonl", [sentences(500)])
    run(corpus, workers=1)
    assert "the files of the sources changed: removed 00_read, 01_exact_dedup" in capsys.readouterr().out
    assert len(documents(stage(corpus, "01_exact_dedup"))) == 61


def test_the_number_of_workers_changes_no_byte(corpus, tmp_path):
    run(corpus, workers=1)
    before = outputs(tmp_path / "out")
    for path in ("out/stages", "out/report.html"):
        subprocess.run(["rm", "-r", tmp_path / path], check=True, timeout=60)
    run(corpus, workers=3)
    assert outputs(tmp_path / "out") == before


def test_repeated_ids_of_records_are_set_aside_in_the_order_of_the_input(tmp_path):
    first = tmp_path / "first.jsonl"
    first.write_text("".join(json.dumps({"key": n % 25, "text": sentences(n)}) + "\n" for n in range(40)))
    second = tmp_path / "second.jsonl"
    second.write_text("".join(json.dumps({"key": str(n), "text": sentences(1000 + n)}) + "\n" for n in range(20, 40)))
    source = jsonl_source(first, second, id_field="key", limits={"share": 1.0})
    corpus = write_corpus(tmp_path / "corpus.yaml", [source], shard_size="2KB")
    run(corpus, workers=2)
    kept = documents(stage(corpus, "00_read"))
    assert [document["id"] for document in kept] == [str(n) for n in range(40)]
    assert [document["text"] for document in kept] == [
        *map(sentences, range(25)),
        *(sentences(1000 + n) for n in range(25, 40)),
    ]
    aside = set_aside(stage(corpus, "00_read"))
    assert [(Path(record["file"]).name, record["line"]) for record in aside] == [
        *(("first.jsonl", line) for line in range(26, 41)),
        *(("second.jsonl", line) for line in range(1, 6)),
    ]
    assert {record["reason"] for record in aside} == {"duplicate_id"}
    ledger = json.loads((stage(corpus, "00_read") / "ledger.json").read_text())["sources"]["laws"]
    assert (ledger["entered"]["documents"], ledger["kept"]["documents"]) == (40, 40)
    assert ledger["kept"]["characters"] == sum(len(document["text"]) for document in kept)
    assert sum(ledger["lengths_kept"].values()) == 40


def test_more_broken_records_than_allowed_stop_the_run_with_one_sentence(tmp_path):
    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(30)))
    with open(path, "a") as handle:
        handle.write("{broken\n" * 3)
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)])
    with pytest.raises(UserError, match=r"source laws: 3 of 33 records cannot be read.*laws\.jsonl, line 31.*limits: share"):
        run(corpus, workers=1)
    assert not (stage(corpus, "00_read") / "done.json").exists()
    corpus.write_text(corpus.read_text() + "limits: {share: 0.1}\n")
    run(corpus, workers=1)  # what was read is not read again
    assert len(documents(stage(corpus, "00_read"))) == 30


def test_a_file_that_vanishes_after_planning_stops_the_run_until_it_is_back(tmp_path, monkeypatch):
    from preprocessing.pipeline import run as module

    paths = [write_jsonl(tmp_path / f"{name}.jsonl", [sentences(n)]) for n, name in enumerate("abc")]
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(*paths)], shard_size=10)
    planned = module._planned

    def plan_then_remove(*arguments):
        result = planned(*arguments)
        paths[1].rename(tmp_path / "away")
        return result

    monkeypatch.setattr(module, "_planned", plan_then_remove)
    with pytest.raises(UserError, match=r"1 file vanished or cannot be opened \(.*b\.jsonl: No such file.*missing_files"):
        run(corpus, workers=1)
    monkeypatch.setattr(module, "_planned", planned)
    (tmp_path / "away").rename(paths[1])
    run(corpus, workers=1)
    assert [document["text"] for document in documents(stage(corpus, "00_read"))] == [sentences(n) for n in range(3)]
    assert not set_aside(stage(corpus, "00_read"))


def test_two_runs_in_one_folder_are_refused(corpus):
    import fcntl

    (corpus.parent / "out").mkdir()
    with open(corpus.parent / "out" / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run works in"):
            run(corpus, workers=1)


def test_a_run_that_is_refused_leaves_neither_lock_nor_folder(tmp_path):
    broken = [{"decontaminate": {"sets": {"a": [str(tmp_path / "gone.jsonl")]}}}]
    source = jsonl_source(write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(3))))
    path = write_corpus(tmp_path / "corpus.yaml", [source], broken)
    path.write_text(path.read_text().replace(str(tmp_path / "out"), str(tmp_path / "data" / "out")))
    for was_there in (False, True):
        if was_there:
            (tmp_path / "data" / "out").mkdir(parents=True)
        with pytest.raises(UserError, match="gone"):
            run(path, workers=1)
        assert (tmp_path / "data").exists() == was_there
        assert not list(tmp_path.glob("data/out/*"))
    (tmp_path / "data" / "out" / "mine.txt").touch()
    with pytest.raises(UserError, match="gone"):
        run(path, workers=1)
    assert (tmp_path / "data" / "out" / "mine.txt").exists()


def test_a_worker_that_is_killed_is_told_of_and_ends_the_run(tmp_path):
    from preprocessing.pipeline.executors import LocalExecutor
    from preprocessing.pipeline.phases import Phase

    executor = LocalExecutor(Phase("kill", 2, [Killed()]), tmp_path / "01_exact_dedup" / "logs" / "kill", 2)
    with pytest.raises(UserError, match=r"a worker was killed in .*01_exact_dedup, .*the same command goes on"):
        executor.run_tasks(lambda _: None)
    assert executor.get_incomplete_ranks() == [0, 1]


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(corpus):
    big = corpus.parent / "second.jsonl"
    # random letters: a shard of them does not compress below the limit
    write_jsonl(big, [os.urandom(300_000).hex()])
    done = mecellem("prepare", "run", corpus, "--workers", "1", cwd=corpus.parent, file_size_limit=200_000, timeout=300)
    assert "the disk is full" in refusal(done)
    assert not list((corpus.parent / "out").rglob("*.tmp-*"))
    run(corpus, workers=1)
    assert len(documents(stage(corpus, "01_exact_dedup"))) == 61


def test_sigterm_stops_and_says_how_to_go_on(tmp_path):
    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(600)))
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], STAGES, shard_size="2KB")
    command = [sys.executable, "-m", "mecellem", "prepare", "run", str(corpus), "--workers", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ledgers = tmp_path / "out" / "stages" / "00_read" / "ledger"
        deadline = time.monotonic() + 120
        while not (ledgers.is_dir() and len(list(ledgers.iterdir())) > 3):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 143, (out, err)
    assert "the same command goes on there" in out
    assert "Traceback" not in err
    run(corpus, workers=2)
    assert len(documents(stage(corpus, "01_exact_dedup"))) == 600


def test_lines_are_numbered_over_byte_ranges_and_files(tmp_path):
    lines = [json.dumps({"text": sentences(n, n % 50)}) for n in range(200)]
    lines[150] = "{broken"
    path = tmp_path / "laws.jsonl"
    path.write_text("\n".join(lines))  # the last line has no end
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path, limits={"share": 0.1})], shard_size="3KB")
    run(corpus, workers=1)
    found = {document["origin"]: document["text"] for document in documents(stage(corpus, "00_read"))}
    assert found == {f"{path}:{n + 1}": sentences(n, n % 50) for n in range(200) if n != 150}
    [record] = set_aside(stage(corpus, "00_read"))
    assert (record["line"], record["reason"], record["record"]) == (151, "not_json", "{broken")
    assert lines_of(sorted((stage(corpus, "00_read") / "quarantine").iterdir())[0]) == [record]
