import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_runs_side_by_side_and_writes_the_table(sample_tokenizer, tmp_path):
    script, out = ROOT / "benchmarks" / "convert.py", tmp_path / "result.md"
    flags = ["--tiny", "--rounds", "1", "--threads", "1", "--tokenizer", sample_tokenizer, "--out", out]
    done = subprocess.run(
        list(map(str, [sys.executable, script, *flags])), capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert "A tiny shape" in text and "Qwen3-0.6B" not in text
    rows = re.findall(r"^\| ([a-z: ]+) \| [\d.]+ \([\d.]+, [\d.]+\) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == ["safetensors: read and write", "import", "export"]
    assert float(rows[0][1]) == 1.0
    (tokens,) = re.findall(r"s for ([\d,]+) tokens in fp32", text)
    assert int(tokens.replace(",", "")) > 256  # the verification read the long text, too
