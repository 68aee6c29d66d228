import contextlib
import os
import sys

import pytest
from pipeline_runs import documents, jsonl_source, sentences, write_corpus, write_jsonl

from preprocessing.pipeline.config import read_corpus
from preprocessing.pipeline.executors import LocalExecutor
from preprocessing.pipeline.plan import make_plan
from preprocessing.pipeline.steps import begin, finish, steps_of

STAGES = [{"exact_dedup": {}}, {"minhash": {}}, {"semantic_dedup": {"threshold": 1 - 1e-6}}]
_counting = {"on": False, "work": 0}


def _count(event, arguments):
    """File-system work: an opened file is one, a folder that is listed is as many as it has entries."""
    if _counting["on"] and event == "open":
        _counting["work"] += 1
    if _counting["on"] and event in ("os.scandir", "os.listdir") and isinstance(arguments[0], (str, os.PathLike)):
        _counting["on"] = False
        with contextlib.suppress(OSError):  # imports look into folders that are not there
            _counting["work"] += 1 + sum(1 for _ in os.scandir(arguments[0]))
        _counting["on"] = True


sys.addaudithook(_count)


def file_system_work(folder, shards):
    """What a whole run of so many tiny shards opens and lists, all in this process; half of the documents are copies."""
    folder.mkdir()
    paths = [write_jsonl(folder / "raw" / f"{n:05d}.jsonl", [sentences(n), sentences(n // 2)]) for n in range(shards)]
    source = jsonl_source(folder / "raw" / "*.jsonl", id_field=None)
    size = max(path.stat().st_size for path in paths)  # so that each file is a shard
    corpus = read_corpus(write_corpus(folder / "corpus.yaml", [source], STAGES, shard_size=size))
    _counting.update(on=True, work=0)
    plan = make_plan(corpus)
    steps = steps_of(corpus, plan)
    begin(steps, plan)
    limits = {item.name: corpus.limits_of(item.name) for item in corpus.file.sources}
    for step in steps:
        for phase in step.phases():
            executor = LocalExecutor(phase, step.folders.logs(phase.name), workers=1)
            for rank in executor.get_incomplete_ranks():
                executor._run_for_rank(rank, local_rank=1)
        finish(step.folders, step.digest, limits)
    _counting["on"] = False
    assert len(plan.tasks) == shards
    assert len(documents(steps[-1].folders.root)) == shards
    return _counting["work"]


@pytest.mark.slow
def test_ten_times_the_shards_are_ten_times_the_file_system_work(tmp_path):
    few, many = file_system_work(tmp_path / "few", 25), file_system_work(tmp_path / "many", 250)
    assert many / few < 11, (few, many)
