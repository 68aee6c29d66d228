"""Losses and gradients of a decoder on every layout equal those of a single process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from decoder_layouts import LAYOUTS, SHAPES, run

from megatron_recipes.config import ParallelConfig
from megatron_recipes.engine.launch import Rank
from megatron_recipes.engine.parallel import parallel_state

START = (
    "import sys; from megatron_recipes.engine.launch import start_ranks; sys.exit(start_ranks(sys.argv[2:], int(sys.argv[1])))"
)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with losses and gradients of each shape from one process."""
    folder = tmp_path_factory.mktemp("layouts")
    for name, shape in SHAPES.items():
        place = Rank(0, 1, 0, str(folder / f"store_{name}"))
        with parallel_state(place, ParallelConfig(), seed=0):
            losses, gradients, _ = run(shape, ParallelConfig(), place)
            torch.save({"losses": losses, "gradients": gradients}, folder / f"{name}.pt")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_losses_and_gradients_equal_the_single_process(single: Path, ranks: int):
    names = [name for name, layout in LAYOUTS.items() if layout.ranks == ranks]
    command = [sys.executable, str(Path(__file__).with_name("decoder_layouts.py")), str(single), *names]
    done = subprocess.run([sys.executable, "-c", START, str(ranks), *command], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in names:
        results = [json.loads((single / f"{name}.{rank}.json").read_text()) for rank in range(ranks)]
        expected = torch.load(single / f"{LAYOUTS[name].shape}.pt")["losses"]
        found = [result["losses"] for result in results if result["losses"]]  # of the ranks of the last pipeline stage
        assert found and all(losses == pytest.approx(expected, rel=1e-6) for losses in found), name
        assert max(result["gradients"] for result in results) <= 1e-5, name
