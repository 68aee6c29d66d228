import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_runs_side_by_side_and_writes_the_table(sample_bins, sample_tokenizer, tmp_path):
    script, out = ROOT / "benchmarks" / "mlm_data.py", tmp_path / "result.md"
    flags = ["--rounds", "2", "--seconds", "0.2", "--out", out]
    command = [sys.executable, script, "--corpus", sample_bins / "train", "--tokenizer", sample_tokenizer, *flags]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \(", out.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 10
    for name, rate in rows:
        assert float(rate) > 0.0, name
