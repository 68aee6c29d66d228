"""The same numbers on every layout, from initial weights that no layout influences."""

from pathlib import Path

import pytest
from training_runs import Runner, losses, validation_losses

LAYOUTS = {
    "TP2": {"parallel.tensor": 2},
    "TP2+SP": {"parallel.tensor": 2, "parallel.sequence": True},
    "PP2": {"parallel.pipeline": 2},
    "DP2": {"nproc": 2},
    "DP2 without the distributed optimizer": {"nproc": 2, "optimizer.no-distributed": True},
    "TP2 x PP2 + SP": {"parallel.tensor": 2, "parallel.pipeline": 2, "parallel.sequence": True},
    "PP2 x DP2": {"parallel.pipeline": 2, "nproc": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_losses_equal_the_single_process(name: str, runner: Runner, reference: Path, tmp_path: Path):
    runner(tmp_path / "run", **LAYOUTS[name])
    expected, found = losses(reference), losses(tmp_path / "run")
    assert len(expected) == 6 and found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-5)
    assert validation_losses(tmp_path / "run") == pytest.approx(validation_losses(reference), rel=1e-5)
    assert expected[6] < expected[1]  # and it learns


@pytest.mark.slow
def test_bf16_trains_on_two_by_two_ranks(runner: Runner, reference: Path, tmp_path: Path):
    runner(tmp_path / "run", precision="bf16", **LAYOUTS["TP2 x PP2 + SP"])
    assert losses(tmp_path / "run") == pytest.approx(losses(reference), rel=2e-2)
