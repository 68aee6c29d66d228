"""SIGKILL for all processes of `mecellem prepare run` at random moments: the same command goes on to the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from command_line import mecellem
from pipeline_runs import jsonl_source, outputs, sentences, write_corpus, write_jsonl

from mecellem.manifest import read_manifest, verify_files
from preprocessing.pipeline import registry

STAGES = [
    {"repair": {}},
    {"exact_dedup": {}},
    {"minhash": {"n_grams": 2, "bands": 3, "hashes_per_band": 6}},
    {"semantic_dedup": {"threshold": 0.999}},
    {"quality": {"min_words": 3, "min_stop_words": 0, "top_ngrams": [], "duplicate_ngrams": []}},
    {"language": {"threshold": 0}},
    {"morphology": {"min_suffix_entropy": 0.1, "min_lemma_diversity": 0.05}},
    {"pii": {}},
]


@pytest.fixture
def corpus(tmp_path):
    """Two sources, one with ids of its own, with repeated ids, copies, near copies, broken lines, text to mend and to mask."""
    from preprocessing.tokenizer import train_tokenizer, write_tokenizer

    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    write_tokenizer(train_tokenizer(map(sentences, range(60)), 300), tokenizer, 512)
    texts = [*map(sentences, range(80)), *map(sentences, range(20)), *(f"{sentences(n)} Son söz." for n in range(30, 40))]
    texts += [sentences(n).replace("ı", "\u0131\u200b") for n in range(100, 110)] + ["kısa"] * 3
    texts += [f"{sentences(n)} Arayın: 0532 123 45 67" for n in range(110, 115)]
    first = write_jsonl(tmp_path / "first.jsonl", texts)
    with open(first, "a") as handle:
        handle.write("{broken\n")
    second = tmp_path / "second.jsonl"
    second.write_text("".join(f'{{"key": {n % 50}, "text": "{sentences(500 + n)}"}}\n' for n in range(60)), encoding="utf-8")
    limits = {"share": 0.5}
    sources = [jsonl_source(first, name="first", limits=limits)]
    sources.append(jsonl_source(second, name="second", licence="MIT", id_field="key", limits=limits))
    tokens = {"tokenizer": str(tokenizer), "per_source": True}
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [sentences(5), sentences(505)])
    stages = [*STAGES, {"decontaminate": {"sets": {"held_out": [str(held_out)]}}}]
    assert {name for stage in stages for name in stage} == registry.STAGES.keys()
    return write_corpus(tmp_path / "corpus.yaml", sources, stages, shard_size="20KB", keep_shards="last", tokenize=tokens)


def place(out):
    """How far a run has come: the stages that are done, and the corpora that have a manifest."""
    done = {path.parent.name for path in out.glob("stages/*/done.json")}
    return (len(done), sum(1 for _ in out.glob("tokens/*.manifest.json")))


def wait_for_begin(out, process):
    """Until the run holds its lock, so that every kill meets its work and none Python's imports."""
    deadline = time.monotonic() + 120
    while not (out / ".lock").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def check_tokens(out):
    """Whatever a kill leaves: a corpus that has a manifest is what its manifest says."""
    for path in out.glob("tokens/*.manifest.json"):
        prefix = path.with_name(path.name.removesuffix(".manifest.json"))
        verify_files(prefix, read_manifest(prefix))


@pytest.mark.slow
@pytest.mark.parametrize("kills", [int(os.environ.get("MECELLEM_KILLS", "3"))])
def test_kills_at_random_moments_change_no_byte(corpus, kills):
    """MECELLEM_KILLS=30 kills thirty times. Only kills of a run that was under way count."""
    out, command = corpus.parent / "out", ["prepare", "run", str(corpus), "--workers", "2"]
    started = time.monotonic()
    done = mecellem(*command, cwd=corpus.parent, timeout=300)
    assert done.returncode == 0, done.stderr
    whole = time.monotonic() - started
    undisturbed = outputs(out)
    endings = ("bin", "idx", "manifest.json", "provenance.jsonl.zst")
    assert {f"tokens/{name}.{ending}" for name in ("first", "second") for ending in endings} < undisturbed.keys()
    shutil.rmtree(out)
    seed = random.randrange(1 << 30)
    chance, killed, finished, places = random.Random(seed), 0, 0, []
    latest = 0.8 * whole  # without the time in which Python starts
    while killed < kills:
        (out / ".lock").unlink(missing_ok=True)
        with subprocess.Popen(
            [sys.executable, "-m", "mecellem", *command],
            cwd=corpus.parent,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            wait_for_begin(out, process)
            try:
                process.wait(timeout=chance.uniform(0, latest))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            _, complaint = process.communicate(timeout=60)
        check_tokens(out)
        if process.returncode == 0:  # too late: this was no kill, and the next moment is an earlier one
            assert outputs(out) == undisturbed, seed
            shutil.rmtree(out)
            finished, latest = finished + 1, max(0.3 * whole, 0.9 * latest)
            assert finished < 5 * kills, seed
            continue
        assert process.returncode == -signal.SIGKILL, (seed, complaint)
        killed += 1
        places.append(place(out))
        if killed < kills and chance.random() < 0.2:  # some begin anew, most go on
            shutil.rmtree(out, ignore_errors=True)
    print(f"{killed} kills (seed {seed}), each with (stages done, corpora written): {places}")
    done = mecellem(*command, cwd=corpus.parent, timeout=300)
    assert done.returncode == 0, done.stderr
    again = outputs(out)
    assert [name for name in undisturbed if again.get(name) != undisturbed[name]] == [], seed
    assert again.keys() == undisturbed.keys(), seed
