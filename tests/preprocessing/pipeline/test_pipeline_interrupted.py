"""Ctrl-C at any moment of `mecellem prepare run`: one word, code 130, nothing else, and the same command goes on."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import process

import pytest
from command_line import mecellem
from pipeline_runs import Killed, documents, jsonl_source, sentences, write_corpus, write_jsonl

from preprocessing.pipeline.executors import LocalExecutor
from preprocessing.pipeline.phases import Phase


@pytest.fixture
def corpus(tmp_path):
    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(300)))
    stages = [{"repair": {}}, {"exact_dedup": {}}, {"minhash": {}}]
    return write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], stages, shard_size="4KB")


def interrupted_after(corpus, seconds):
    """Code and both outputs of a run that is interrupted, as a terminal does: with all of its processes."""
    lock = corpus.parent / "out" / ".lock"
    shutil.rmtree(lock.parent, ignore_errors=True)
    with subprocess.Popen(
        [sys.executable, "-m", "mecellem", "prepare", "run", str(corpus), "--workers", "4"],
        cwd=corpus.parent,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        deadline = time.monotonic() + 120
        while not lock.exists():  # before that Python starts, and the run has begun nothing
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(seconds)
        os.killpg(child.pid, signal.SIGINT)
        told, said = child.communicate(timeout=60)
    return child.returncode, said, told


@pytest.mark.slow
def test_ctrl_c_at_any_moment_is_one_word(corpus):
    """MECELLEM_KILLS=30 interrupts thirty times. A run that has told its time is at its end, and counts for nothing."""
    seed = random.randrange(1 << 30)
    chance, wanted, tries = random.Random(seed), int(os.environ.get("MECELLEM_KILLS", "4")), 0
    met = 0
    while met < wanted:
        tries += 1
        assert tries < 5 * wanted, seed
        # the first seconds: processes are started and libraries imported
        code, said, told = interrupted_after(corpus, chance.uniform(0, 3))
        if "\ntook " in told:
            continue
        assert (code, said) == (130, "mecellem: interrupted\n"), seed
        met += 1
    done = mecellem("prepare", "run", corpus, "--workers", "2", cwd=corpus.parent)
    assert done.returncode == 0, done.stderr
    assert len(documents(corpus.parent / "out" / "stages" / "00_read")) == 300


@pytest.mark.parametrize("inside", ["_start_executor_manager_thread", "_adjust_process_count"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_processes_are_started_waits_until_they_have(tmp_path, monkeypatch, inside, number):
    """The signal comes inside the pool's own first steps: half done, these would make its end fail in its turn."""
    began, ended = [], []
    real = getattr(process.ProcessPoolExecutor, inside)

    def interrupted(self):
        began.append(inside)
        signal.raise_signal(number)
        real(self)
        ended.append(inside)

    monkeypatch.setattr(process.ProcessPoolExecutor, inside, interrupted)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            LocalExecutor(Phase("keep", 2, [Killed()]), tmp_path / "stage" / "logs" / "keep", 2).run_tasks(lambda _: None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert began == ended == [inside]
