"""A checkpoint holds the weights of its step on every data-parallel rank's part."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import ROOT, TIMEOUT, Runner

from megatron_recipes.config import ParallelConfig
from megatron_recipes.engine.parallel import single_process


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    from conversion.megatron_model import build
    from megatron_recipes.engine.checkpoint import load_weights, read_meta

    module = build(read_meta(checkpoint).model, ParallelConfig(), torch.float32)
    load_weights(checkpoint, module)
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.slow
def test_weights_that_no_forward_pass_has_gathered_yet(runner: Runner, reference: Path, tmp_path: Path):
    """With the distributed optimizer a rank updates its part; without a validation before, a save must gather the rest."""
    run = tmp_path / "run"
    runner(run, nproc=2, validation_interval=2)
    with single_process():
        expected, found = (weights(folder / "checkpoints" / "step_0000003") for folder in (reference, run))
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_optimizer_states_of_several_padded_buckets(tmp_path: Path):
    """Megatron-Core saves them shifted (engine/optimizer_state.py); only models beyond 40 million parameters have several."""
    script = Path(__file__).parent / "bucket_ranks.py"
    code = "import sys; from megatron_recipes.engine.launch import start_ranks; sys.exit(start_ranks(sys.argv[1:], 2))"
    command = [sys.executable, "-c", code, sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
