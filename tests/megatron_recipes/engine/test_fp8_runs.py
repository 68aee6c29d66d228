"""Real runs in emulated FP8, and the gate that says whether they trained like BF16."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import LAST_STAGE, SMALL_DECODER, TIMEOUT, Runner, losses

LONGER = """
stages:
  - name: one
    tokens: 26_624
    seq_len: 64
    global_batch_tokens: 1_024
    lr: {peak: 1.0e-3, warmup_tokens: 4_096}
    sources:
      - {path: GENERAL, weight: 0.5}
      - {path: FORMAL, weight: 0.5}
"""


@pytest.fixture(scope="module")
def long_runner(decoder_data: Path, decoder_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """26 steps that continue the small decoder, so that the gate has something to look at."""
    curriculum = tmp_path_factory.mktemp("longer") / "curriculum.yaml"
    text = LONGER.replace("GENERAL", str(decoder_data / "general")).replace("FORMAL", str(decoder_data / "formal"))
    curriculum.write_text(text)
    small = {
        **SMALL_DECODER,
        **LAST_STAGE,
        "micro-batch-tokens": 512,
        "init-from": decoder_reference / "checkpoints" / "step_0000006",
        "curriculum": curriculum,
        "checkpoint-interval": 13,
        "validation-interval": 13,
        "precision": "bf16",
    }
    return Runner(decoder_data, "qwen3_0p6b_cpt", small, ("data.tokenizer", "data.validation"))


@pytest.fixture(scope="module")
def bf16(long_runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("bf16") / "run"
    long_runner(run)
    return run


def gate(a: Path, b: Path, *flags: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "mecellem", "compare-runs", str(a), str(b), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp8_current", "fp8_hybrid"])
def test_emulated_fp8_trains_like_bf16(precision: str, long_runner: Runner, bf16: Path, tmp_path: Path):
    run = tmp_path / "run"
    long_runner(run, precision=precision, **{"fp8.emulate": True})
    assert losses(run) != losses(bf16)  # it did compute something else
    code, output = gate(bf16, run)
    assert code == 0 and json.loads((run / "compare_runs.json").read_text())["passed"], output
    if precision == "fp8_hybrid":  # its scales are state: a resumed run must go on with them
        whole = losses(run)
        shutil.rmtree(run / "checkpoints" / "step_0000026")
        long_runner(run, precision=precision, **{"fp8.emulate": True})
        assert losses(run) == whole


@pytest.mark.slow
def test_a_run_that_trains_otherwise_fails_the_gate(long_runner: Runner, bf16: Path, tmp_path: Path):
    run = tmp_path / "run"
    long_runner(run, **{"optimizer.beta2": 0.5})
    assert gate(bf16, run)[0] == 2  # not the same training: refused, unless it is what one wants to know
    code, output = gate(bf16, run, "--allow", "optimizer.beta2")
    assert code == 1 and not json.loads((run / "compare_runs.json").read_text())["passed"], output


@pytest.mark.slow
def test_real_fp8_is_refused_without_a_gpu(long_runner: Runner, tmp_path: Path):
    output = long_runner(tmp_path / "run", code=2, precision="fp8_current")
    assert "needs CUDA and Transformer Engine" in output and "--fp8.emulate" in output
