"""Real training runs of a small model on real text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import TIMEOUT, Runner


@pytest.fixture(scope="session")
def small_data(sample_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer of 1,100 entries and the validation split's text as train and validation corpus."""
    folder = tmp_path_factory.mktemp("small")
    text = sample_corpus / "validation.jsonl.zst"
    commands = [["tokenizer", "train", "--corpus", text, "--vocab-size", 1100, "--out", folder / "tokenizer"]]
    commands += [
        ["prepare", "tokenize", "--input", text, "--tokenizer", folder / "tokenizer", "--out", folder / name]
        for name in ("train", "validation")
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "mecellem", *map(str, command)], capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def runner(small_data: Path) -> Runner:
    return Runner(small_data)


@pytest.fixture(scope="session")
def reference(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted single-process run that every other layout and every resumed run is compared with."""
    run = tmp_path_factory.mktemp("reference") / "run"
    runner(run)
    return run
