import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "tokenize_corpus.py"


def run(*flags, cwd):
    command = [sys.executable, str(SCRIPT), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, check=False)


@pytest.mark.slow
def test_ours_is_measured_alone_where_there_is_no_megatron(sample_tokenizer, tmp_path):
    out = tmp_path / "result.md"
    flags = ["--tokenizer", sample_tokenizer, "--rounds", "1", "--megabytes", "1", "--memory-megabytes", "2", "--out", out]
    done = run(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert re.search(r"^\| ours \| [\d.]+ \([\d.]+ to [\d.]+\) \| 1\.0 \| [\d.]+M \| \d+ \| the same \|$", text, re.MULTILINE)
    assert re.search(r"^\| 2 \| [\d.]+ \| \d+ \|$", text, re.MULTILINE)
    assert "Engine gigatoken" in text


@pytest.mark.slow
def test_a_folder_without_megatrons_tool_is_refused(tmp_path):
    done = run("--megatron", tmp_path, cwd=tmp_path)
    assert done.returncode != 0
    assert "clone Megatron-LM's main branch" in done.stderr
