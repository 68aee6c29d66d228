"""A tokenizer that is not the one the checkpoints of these tests were made with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_tokenizer(sample_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer") / "small"
    arguments = ["--corpus", str(sample_corpus / "validation.jsonl.zst"), "--vocab-size", "700", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "mecellem", "tokenizer", "train", *arguments], check=True, timeout=120)
    return out
