"""`mecellem train --measure`: steps as a run does them, timed, and nothing else left behind."""

import json

import pytest

from mecellem.errors import UserError
from megatron_recipes.config import EncoderRun
from megatron_recipes.measurement import read_measurement
from megatron_recipes.plan import flops_per_token, plan
from megatron_recipes.recipes import find_recipe
from megatron_recipes.train import main


@pytest.mark.slow
def test_steps_are_timed_and_nothing_is_saved(runner, tmp_path):
    said = runner(tmp_path / "out", measure=3, measure_warmup=1, nproc=2)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["measurement.json"]
    found = read_measurement(tmp_path / "out")
    assert found is not None and len(found.seconds) == 3 and len(found.warmup_seconds) == 1
    assert (found.ranks, found.layout["data"], found.tokens_per_step) == (2, 2, 1024)
    assert min(found.seconds) > 0 and found.peak_memory_bytes > 1e8
    assert f"{found.tokens_per_second:,.0f} tokens/s" in said
    assert found.mfu(1.0) == pytest.approx(found.flops_per_step / found.step_seconds / 2e12)


def test_flops_of_a_step_are_the_plans():
    config = find_recipe("mursit_base")()
    assert isinstance(config, EncoderRun)
    found = plan(config, 8)
    assert flops_per_token(config, 1024) * config.tokens_per_step * found.steps == pytest.approx(found.flops)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--measure-warmup", "3"], "--measure-warmup is for --measure"),
        (["--measure", "0"], "at least 1"),
        (["--measure", "3", "--dry-run"], "choose one of them"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        main(["mursit_tiny", "--out", "nowhere", *words])


def test_a_folder_with_a_run_is_refused(tmp_path):
    (tmp_path / "run.yaml").write_text("{}")
    with pytest.raises(UserError, match="holds a run"):
        main(["mursit_tiny", "--out", str(tmp_path), "--measure", "3"])


def test_a_broken_measurement_is_told(tmp_path):
    assert read_measurement(tmp_path) is None
    (tmp_path / "measurement.json").write_text(json.dumps({"recipe": "x"}))
    with pytest.raises(UserError, match=r"measurement.json: ranks: Field required; remove it and measure again"):
        read_measurement(tmp_path)
