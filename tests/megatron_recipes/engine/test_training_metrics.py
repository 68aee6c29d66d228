"""metrics.jsonl is one line a step whatever happened to the process that wrote it."""

import json
from pathlib import Path

import pytest

from megatron_recipes.engine.metrics import Metrics
from megatron_recipes.run_folder import read_metrics

VALUES = {"loss": 2.5, "lr": 1e-3, "grad_norm": 0.7, "masked_tokens": 300.0, "seconds": 0.1, "tokens_per_second": 1e4}
VALIDATION = {"validation_loss": 2.4, "validation_accuracy": 0.31, "validation_tokens": 90.0}


def write(run: Path, resume: int, steps: range) -> None:
    with Metrics(run, resume, total_steps=10, tokens_after=lambda step: 1024 * step) as metrics:
        for step in steps:
            metrics.train(step, VALUES, write=True)
            if step % 2 == 0:
                metrics.validate(step, VALIDATION)


def test_lines(tmp_path: Path):
    write(tmp_path, 0, range(1, 3))
    train = [{"step": step, "tokens": step * 1024, **VALUES} for step in (1, 2)]
    assert read_metrics(tmp_path) == [*train, {"step": 2, "tokens": 2048, **VALIDATION}]


def test_no_run_yet(tmp_path: Path):
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("torn", ['{"step": 7, "lo', '{"step": 7}', "\x00\x00\x00"])
def test_a_line_without_its_end_is_dropped(torn: str, tmp_path: Path):
    write(tmp_path, 0, range(1, 3))
    before = read_metrics(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write(torn)
    assert read_metrics(tmp_path) == before
    write(tmp_path, 2, range(3, 4))
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 2, 3]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 4


def test_lines_after_the_resumed_step_are_dropped(tmp_path: Path):
    write(tmp_path, 0, range(1, 7))
    write(tmp_path, 3, range(4, 6))
    assert [line["step"] for line in read_metrics(tmp_path) if "loss" in line] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in read_metrics(tmp_path) if "validation_loss" in line] == [2, 4]


def test_steps_between_the_log_interval_are_shown_and_not_written(tmp_path: Path):
    with Metrics(tmp_path, 0, 10, lambda step: 1024 * step) as metrics:
        metrics.train(1, VALUES, write=False)
        metrics.train(2, VALUES, write=True)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [2]


def test_tensorboard_has_the_same_values(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 0, range(1, 5))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(step, 2.5) for step in range(1, 5)]
    assert [event.step for event in events.Scalars("validation_loss")] == [2, 4]
