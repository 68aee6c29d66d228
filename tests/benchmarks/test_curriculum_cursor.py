import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_runs_side_by_side_and_writes_the_tables(sample_bins, sample_tokenizer, tmp_path):
    script, out = ROOT / "benchmarks" / "curriculum_cursor.py", tmp_path / "result.md"
    flags = ["--rounds", "1", "--steps", "2", "--out", out]
    command = [sys.executable, script, "--corpus", sample_bins / "validation", "--tokenizer", sample_tokenizer, *flags]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (ours|megatron\.core) \|.*\| ([\d.]+) \([^|]*\| [\d.]+ \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == ["ours", "megatron.core"] * 2
    assert all(float(rate) > 0 for _, rate in rows)
    assert len(re.findall(r"Blend and cursor are [\d.]+% of a step", text)) == 2
