"""The pipeline through a real Slurm: arrays that wait for each other, also after jobs were cancelled."""

import tempfile
import time
from pathlib import Path

import pytest
from pipeline_runs import documents, jsonl_source, outputs, sentences, write_corpus, write_jsonl
from slurm_cluster import cluster

from preprocessing.pipeline.run import run

pytestmark = pytest.mark.slow
STAGES = [{"repair": {}}, {"exact_dedup": {}}]
SITE = "PARTITION=cpu\nTIME=00:05:00\nMEM_PER_CPU_GB=1\n"


@pytest.fixture(scope="module")
def slurm():
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder)) as running:  # a socket's path is short
        yield running


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "cluster.env"
    path.write_text(SITE)
    return path


def make_corpus(folder):
    texts = [*map(sentences, range(60)), *map(sentences, range(9))]
    path = write_jsonl(folder / "laws.jsonl", texts)
    return write_corpus(folder / "corpus.yaml", [jsonl_source(path)], STAGES, shard_size="10KB")


def expected(tmp_path):
    """The outputs of the same corpus on this machine alone, at the same path."""
    corpus = make_corpus(tmp_path)
    run(corpus, workers=1)
    found = outputs(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "local")
    return corpus, found


def test_arrays_write_the_bytes_of_one_machine_though_jobs_were_cancelled(tmp_path, site, slurm):
    corpus, alone = expected(tmp_path)
    run(corpus, executor="slurm", site=site, workers=4)
    end = time.monotonic() + 60
    while "RUNNING" not in slurm.ask("squeue", "--noheader", "--format=%T"):
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1)
    slurm.ask("scancel", "--user=root")
    slurm.wait_for_jobs(60)
    assert outputs(tmp_path / "out") != alone
    run(corpus, executor="slurm", site=site, workers=4)
    slurm.wait_for_jobs(150)
    assert outputs(tmp_path / "out") == alone


def test_two_thousand_shards_without_a_queue_of_two_thousand_jobs(tmp_path, site, slurm, capsys):
    site.write_text(SITE + "ARRAY_JOBS=6\n")
    paths = [write_jsonl(tmp_path / "raw" / f"{number:04d}.jsonl", [f"Madde {number:04d}."]) for number in range(2000)]
    source = jsonl_source(tmp_path / "raw" / "*.jsonl", id_field=None)
    corpus = write_corpus(tmp_path / "corpus.yaml", [source], [], shard_size=paths[0].stat().st_size)
    run(corpus, executor="slurm", site=site, workers=3)
    assert "read: 2,000 tasks, Slurm job " in capsys.readouterr().out
    queued = slurm.ask("squeue", "--array", "--noheader", "--format=%F").split()
    assert max(queued.count(job) for job in queued) <= 6
    slurm.wait_for_jobs(240)
    assert [item["text"] for item in documents(tmp_path / "out" / "stages" / "00_read")] == [
        f"Madde {number:04d}." for number in range(2000)
    ]
