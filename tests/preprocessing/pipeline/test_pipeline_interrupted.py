"""Ctrl-C at any moment of `mecellem prepare run`: one word, code 130, nothing else, and the same command goes on."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from command_line import mecellem
from pipeline_runs import documents, jsonl_source, sentences, write_corpus, write_jsonl


@pytest.fixture
def corpus(tmp_path):
    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(300)))
    stages = [{"repair": {}}, {"exact_dedup": {}}, {"minhash": {}}]
    return write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], stages, shard_size="4KB")


def interrupted_after(corpus, seconds):
    """Code and standard error of a run that is interrupted, as a terminal does: with all of its processes."""
    lock = corpus.parent / "out" / ".lock"
    lock.unlink(missing_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "mecellem", "prepare", "run", str(corpus), "--workers", "4"],
        cwd=corpus.parent,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not lock.exists():  # before that Python starts, and the run has begun nothing
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.slow
def test_ctrl_c_at_any_moment_is_one_word(corpus):
    """MECELLEM_KILLS=30 interrupts thirty times. A run that was at its end already counts for nothing."""
    seed = random.randrange(1 << 30)
    chance, wanted, tries = random.Random(seed), int(os.environ.get("MECELLEM_KILLS", "4")), 0
    met = 0
    while met < wanted:
        tries += 1
        assert tries < 5 * wanted, seed
        # the first seconds: processes are started and libraries imported
        code, said = interrupted_after(corpus, chance.uniform(0, 4))
        if code == 0:
            continue
        assert (code, said) == (130, "mecellem: interrupted\n"), seed
        met += 1
    done = mecellem("prepare", "run", corpus, "--workers", "2", cwd=corpus.parent)
    assert done.returncode == 0, done.stderr
    assert len(documents(corpus.parent / "out" / "stages" / "00_read")) == 300


def test_ctrl_c_while_processes_are_started_is_acted_on_when_they_have(tmp_path, monkeypatch):
    """The moment is forced: the signal comes inside the pool's own first steps, which must not be left half done."""
    from concurrent.futures import process

    from preprocessing.pipeline.executors import _pool, _uninterrupted

    for inside in ("_start_executor_manager_thread", "_adjust_process_count"):
        real = getattr(process.ProcessPoolExecutor, inside)

        def interrupted(self, real=real):
            signal.raise_signal(signal.SIGINT)
            real(self)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), _pool(2, tmp_path / "console.log") as pool:
            patched.setattr(process.ProcessPoolExecutor, inside, interrupted)
            with _uninterrupted():
                pool.submit(os.getpid)
