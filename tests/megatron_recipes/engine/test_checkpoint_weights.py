"""A checkpoint holds the weights of its step on every data-parallel rank's part."""

from pathlib import Path

import pytest
import torch
from training_runs import Runner

from megatron_recipes.engine.parallel import single_process


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    from conversion.megatron_model import load_whole

    module, _ = load_whole(checkpoint)
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
