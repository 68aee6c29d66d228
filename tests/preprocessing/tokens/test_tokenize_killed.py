"""SIGKILL at chosen and at random moments of `mecellem prepare tokenize`."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from mecellem.errors import UserError
from mecellem.manifest import read_manifest, verify_files
from preprocessing.tokens.tokenize import tokenize_corpus

FILES = ("x.bin", "x.idx", "x.manifest.json")


def write_jsonl(path, records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def assert_nothing_false_is_believed(prefix, expected):
    """Either there is no manifest, or every file is what it says and is the old or the new corpus."""
    try:
        manifest = read_manifest(prefix)
    except UserError as error:
        assert "is missing" in str(error)
        return
    verify_files(prefix, manifest)
    assert {name: entry.sha256 for name, entry in manifest.files.items()} in expected


DIE_AT_RENAME = """
import os, signal, sys
from pathlib import Path
from preprocessing.tokens.tokenize import tokenize_corpus
when, number = sys.argv[4], int(sys.argv[5])
rename, calls = os.replace, 0
def dying(source, target):
    global calls
    calls += 1
    if when == "after": rename(source, target)
    if calls == number: os.kill(os.getpid(), signal.SIGKILL)
    if when == "before": rename(source, target)
os.replace = dying
tokenize_corpus([Path(sys.argv[1])], Path(sys.argv[2]), Path(sys.argv[3]), replace="replace" in sys.argv)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])  # the note, .bin, .idx, manifest
def test_killed_around_each_rename_over_an_older_corpus(sample_tokenizer, tmp_path, out, when, number):
    old = write_jsonl(tmp_path / "old.jsonl", [{"text": "eski"}])
    new = write_jsonl(tmp_path / "new.jsonl", [{"text": "yeni ve daha uzun"}])
    hashes = []
    for source in (new, old):
        manifest = tokenize_corpus([source], sample_tokenizer, out / "x", replace=True)
        hashes.append({name: entry.sha256 for name, entry in manifest.files.items()})
    whole_new = tokenize_corpus([new], sample_tokenizer, tmp_path / "x")

    kill_at_rename(new, sample_tokenizer, out / "x", when, number, "replace")
    assert_nothing_false_is_believed(out / "x", hashes)
    assert tokenize_corpus([new], sample_tokenizer, out / "x", replace=True) == whole_new
    assert set(contents(out)) == set(FILES)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_around_each_rename_the_same_command_goes_on(sample_tokenizer, tmp_path, out, when, number):
    """Without --replace: what a killed run left of its own is no other corpus."""
    source, other = (write_jsonl(tmp_path / f"{text}.jsonl", [{"text": text}]) for text in ("bir", "iki"))
    whole = tokenize_corpus([source], sample_tokenizer, tmp_path / "x")
    kill_at_rename(source, sample_tokenizer, out / "x", when, number)
    if (out / "x.bin").exists():
        before = contents(out)
        with pytest.raises(UserError, match="add --replace"):  # other text: not what was begun here
            tokenize_corpus([other], sample_tokenizer, out / "x")
        kept = ("x.bin", "x.idx")
        assert [contents(out).get(name) for name in kept] == [before.get(name) for name in kept]
    assert tokenize_corpus([source], sample_tokenizer, out / "x") == whole
    verify_files(out / "x", whole)
    assert set(contents(out)) == set(FILES)


@pytest.mark.parametrize("number", [3, 4])
def test_files_that_came_after_a_kill_are_not_overwritten(sample_tokenizer, tmp_path, out, number):
    source = write_jsonl(tmp_path / "x.jsonl", [{"text": "bir"}])
    kill_at_rename(source, sample_tokenizer, out / "x", "before", number)
    (out / "x.idx").unlink(missing_ok=True)
    (out / "x.idx").write_bytes(b"another tool's")
    with pytest.raises(UserError, match=r"x\.bin exists already"):
        tokenize_corpus([source], sample_tokenizer, out / "x")
    assert (out / "x.idx").read_bytes() == b"another tool's"
    tokenize_corpus([source], sample_tokenizer, out / "x", replace=True)
    assert set(contents(out)) == set(FILES)


def kill_at_rename(source, tokenizer, prefix, *how):
    arguments = map(str, (source, tokenizer, prefix, *how))
    done = subprocess.run([sys.executable, "-c", DIE_AT_RENAME, *arguments], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("kills", [int(os.environ.get("MECELLEM_KILLS", "8"))])
def test_killed_at_random_moments_the_same_command_goes_on(sample_corpus, sample_tokenizer, out, kills):
    """MECELLEM_KILLS=30 kills thirty times."""
    source = sample_corpus / "validation.jsonl.zst"
    whole = tokenize_corpus([source], sample_tokenizer, out / "whole")
    hashes = [whole.files["whole.bin"].sha256, whole.files["whole.idx"].sha256]
    expected = [dict(zip(("x.bin", "x.idx"), hashes, strict=True))]
    command = [sys.executable, "-m", "mecellem", "prepare", "tokenize", "--input", source]
    command += ["--tokenizer", sample_tokenizer, "--out", out / "x"]
    started = time.monotonic()
    subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, check=True, timeout=60)
    whole_run = time.monotonic() - started
    for name in FILES:
        (out / name).unlink()
    seed = random.randrange(1 << 30)
    delays = random.Random(seed)
    killed = finished = 0
    while killed < kills:
        child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            child.wait(timeout=delays.uniform(0.1, 0.9) * whole_run)
        except subprocess.TimeoutExpired:
            child.kill()
        _, complaint = child.communicate(timeout=60)
        assert child.returncode in (0, -signal.SIGKILL), (seed, complaint)
        assert_nothing_false_is_believed(out / "x", expected)
        if child.returncode == 0:
            for name in FILES:
                (out / name).unlink()
            finished += 1
            assert finished < 10 * kills, seed
        else:
            killed += 1
    subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, check=True, timeout=60)
    for kind in ("bin", "idx"):
        assert (out / f"x.{kind}").read_bytes() == (out / f"whole.{kind}").read_bytes(), seed
    assert sorted(contents(out)) == sorted([*FILES, *(name.replace("x.", "whole.", 1) for name in FILES)]), seed
