from __future__ import annotations

import pytest

from evaluation.run_folder import (
    list_checkpoints,
    metrics_of,
    training_lines,
    validation_lines,
)
from mecellem.errors import UserError


def test_reads_both_kinds_of_lines(run):
    rows = metrics_of(run)
    assert len(training_lines(rows)) == 40 and len(validation_lines(rows)) == 4
    assert all(isinstance(row["step"], int) for row in rows)


@pytest.mark.parametrize("tail", ['{"step": 41, "lo', '{"step": 41}', ""])
def test_a_half_written_last_line_is_tolerated(run, tail):
    with open(run / "metrics.jsonl", "a") as handle:
        handle.write(tail)
    assert training_lines(metrics_of(run))[-1]["step"] == 40


@pytest.mark.parametrize("broken", ['{"step": 7, "loss', "[1]", '{"loss": 1}', '{"step": "7"}', "\x00\x00"])
def test_a_broken_middle_line_is_named(run, broken):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[6] = broken
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 7 is broken.*remove that line"):
        metrics_of(run)


def test_a_run_that_has_not_started(run):
    (run / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="has not started"):
        metrics_of(run)


def test_checkpoints_in_order_of_steps(run):
    with pytest.raises(UserError, match="train at least until the first checkpoint"):
        list_checkpoints(run)
    for name in ("step_0000100", "step_0000020", "latest", ".step_0000030.tmp-1", "step_x"):
        (run / "checkpoints" / name).mkdir(parents=True)
    assert list(list_checkpoints(run)) == [20, 100]
