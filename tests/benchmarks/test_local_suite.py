"""The benchmark of a whole evaluation, as its command is called, on one task with a tiny encoder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_calls_are_timed_and_every_task_is_in_the_table(tmp_path: Path):
    words = ["--tasks", "ContractBitextMining", "--tiny", "--threads", "1", "--out", str(tmp_path / "out.md")]
    command = [sys.executable, str(ROOT / "benchmarks" / "local_suite.py"), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "out.md").read_text()
    first, again = (float(re.findall(rf"\| {name} \| ([\d.]+) \|", text)[0]) for name in ("first call", "the same again"))
    assert again < first and "cached" in done.stdout
    assert re.search(r"\| ContractBitextMining \| bitext \| [\d,]+ \| \d+% \| [\d.]+ \|", text), text
