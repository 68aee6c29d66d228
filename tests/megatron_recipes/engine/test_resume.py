"""A run that was stopped, killed or moved to another layout ends as if nothing had happened."""

import os
import signal
from pathlib import Path

import pytest
from training_runs import Runner, losses, metrics, steps_done, validation_losses, wait_for

STEPS = 80  # seconds of training; the signal comes some hundredths after the first step
LONGER = {"schedule.train-tokens": STEPS * 1024, "checkpoint-interval": STEPS, "validation-interval": STEPS // 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [{"nproc": 2}, {"parallel.pipeline": 2}, {"precision": "bf16"}],
    ids=["DP2", "PP2", "one process, BF16 with FP32 master weights"],
)
def test_sigterm_saves_and_the_same_command_ends_bit_for_bit(layout, runner: Runner, tmp_path: Path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = runner.start(run, **LONGER | layout)
    wait_for(lambda: steps_done(run) >= 1, process)
    process.send_signal(signal.SIGTERM)
    output = runner.finish(process)
    stopped = max(losses(run))
    assert stopped < STEPS and f"stopped at step {stopped} of {STEPS}" in output
    assert (run / "checkpoints" / "latest").read_text().strip() == f"step_{stopped:07d}"
    runner(run, **LONGER | layout)
    runner(whole, **LONGER | layout)
    assert len(losses(run)) == STEPS and losses(run) == losses(whole)
    assert validation_losses(run) == validation_losses(whole)


@pytest.mark.slow
@pytest.mark.parametrize("after", [4, 5])
def test_kill_9_loses_only_what_came_after_the_last_checkpoint(after: int, runner: Runner, reference: Path, tmp_path: Path):
    run = tmp_path / "run"
    process = runner.start(run)
    wait_for(lambda: steps_done(run) >= after, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    runner(run)
    assert losses(run) == losses(reference)
    assert validation_losses(run) == validation_losses(reference)
    assert [line["step"] for line in metrics(run) if "loss" in line] == [1, 2, 3, 4, 5, 6]  # no step twice
    assert not list((run / "checkpoints").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"parallel.pipeline": 2}, {"nproc": 2}),
        ({"nproc": 2}, {"parallel.tensor": 2, "parallel.sequence": True}),
    ],
    ids=["PP2 to DP2", "DP2 to TP2+SP"],
)
def test_a_checkpoint_goes_on_in_another_layout(first, second, runner: Runner, reference: Path, tmp_path: Path):
    run = tmp_path / "run"
    runner(run, **first)
    newest = run / "checkpoints" / "step_0000006"
    assert newest.is_dir()
    for item in sorted(newest.rglob("*"), reverse=True):  # as if it had been stopped at step 3
        item.rmdir() if item.is_dir() else item.unlink()
    newest.rmdir()
    runner(run, **second)
    assert losses(run) == pytest.approx(losses(reference), rel=1e-5)


@pytest.mark.slow
def test_a_finished_run_does_nothing_more(runner: Runner, reference: Path):
    before = {path: path.stat().st_mtime_ns for path in (reference / "checkpoints").rglob("*")}
    runner(reference)
    assert {path: path.stat().st_mtime_ns for path in (reference / "checkpoints").rglob("*")} == before


@pytest.mark.slow
def test_another_value_than_the_run_was_started_with_is_refused(runner: Runner, reference: Path):
    output = runner(reference, code=2, **{"optimizer.lr": 1e-4})
    assert "was started with --optimizer.lr 0.003, not 0.0001" in output
