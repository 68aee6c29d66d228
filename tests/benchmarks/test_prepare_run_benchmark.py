import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "prepare_run.py"
STAGES = (
    "read",
    "repair",
    "exact_dedup",
    "minhash",
    "semantic_dedup",
    "quality",
    "language",
    "morphology",
    "pii",
    "decontaminate",
)


@pytest.mark.slow
def test_every_stage_of_a_whole_run_is_measured(tmp_path):
    out = tmp_path / "result.md"
    flags = ["--megabytes", "1", "--small", "0", "--large", "1", "--shard-size", "1MB", "--slowest", "1", "--out", str(out)]
    done = subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert re.findall(r"^## (\d+ MB, \d workers?)$", text, re.MULTILINE) == [
        "1 MB, 1 worker",
        "1 MB, 2 workers",
    ]
    numbers = r"\| [\d.]+ \| [\d.]+ \| \d+% \| [\d.]+ \| [\d,]+ \| [\d,]+ \|$"
    for stage in STAGES:
        rows = re.findall(rf"^\| {stage} \| ([\d,]+) \| ([\d,]+) {numbers}", text, re.MULTILINE)
        assert len(rows) == 2, (stage, text)
        assert rows[0] == rows[1]  # one worker and two
    assert len(re.findall(rf"^\| tokenize \| [\d,]+ \| [\d,]+ tokens {numbers}", text, re.MULTILINE)) == 2
    assert len(re.findall(r"^\| `.+` \| [\d,]+ \| \d+% \|$", text, re.MULTILINE)) == 8
    assert "## Duplicates alone: 1 MB, 2 workers, shards of 1MB" in text
    for stage in ("exact_dedup", "minhash", "semantic_dedup"):
        [row] = re.findall(
            rf"^\| {stage} \| ([\d,]+) \| [\d,]+ \| [\d.]+ \| [\d.]+ \| (\d+) \| ([\d,]+) \| ([\d.]+) \|$", text, re.M
        )
        documents, megabytes, each, many = (float(cell.replace(",", "")) for cell in row)
        assert 0 <= each < megabytes * 1e6 / documents
        assert many == pytest.approx(megabytes / 1e3 + each * (1e7 - documents) / 1e9, abs=0.1)
    assert re.search(r"^\| 1 \| 2 \| \d+ \| \d+ \|$", text, re.MULTILINE)
