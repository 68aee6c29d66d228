"""The demo as a whole, shortened: stopped in training, killed in evaluation, finished, and started once more."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 900


def start(out: Path) -> subprocess.Popen[str]:
    flags = ["--train-tokens", "40000", "--budget", "4", "--libreoffice", "no", "--cache", str(ROOT / ".cache" / "packages")]
    return subprocess.Popen(
        [sys.executable, "-m", "mecellem", "demo", "--out", str(out), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=out.parent,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def finish(process: subprocess.Popen[str], code: int) -> str:
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code, output
    return output


def steps(out: Path) -> list[int]:
    path = out / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if '"loss"' in line]


def made(out: Path) -> dict[str, int]:
    """Checkpoints, results and the export with their times: what a second call must not make again."""
    names = ["run/checkpoints/*/metadata.json", "evaluation/cache/evaluation/*", "export/*", "corpus/*"]
    return {str(path): path.stat().st_mtime_ns for name in names for path in out.glob(name)}


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_stopped_killed_finished_and_called_again(tmp_path: Path):
    out = tmp_path / "demo"
    process = start(out)
    wait_until(lambda: len(steps(out)) >= 1, process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, 130)
    assert re.search(r"training stopped at step \d+ of 10: run `mecellem demo --out .*` again", output)

    process = start(out)
    wait_until(lambda: any(out.glob("evaluation/cache/evaluation/embedding-*/modules.json")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    finish(start(out), 0)
    assert steps(out) == list(range(1, 11))
    assert len(list(out.glob("run/checkpoints/step_*"))) >= 2
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["training"]["steps"] == 10 and summary["evaluation"]["test"]["retrieval"]["bm25"]["mean_ndcg_10"] > 0.1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<html" in page and not re.search(r'(?:src|href)="https?://', page)
    assert json.loads((out / "export" / "verification.json").read_text())["passed"]
    script = (
        "import sys; from transformers import AutoModelForMaskedLM, AutoTokenizer; "
        "t, m = (c.from_pretrained(sys.argv[1]) for c in (AutoTokenizer, AutoModelForMaskedLM)); "
        "print(m(**t('Türkiye Büyük Millet [MASK]', return_tensors='pt')).logits.shape[-1])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(out / "export")], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "8192", done.stderr

    before = made(out)
    assert len(before) > 20
    finish(start(out), 0)
    assert made(out) == before
