"""The learning rate of every step, gradient clipping, and what weight decay leaves alone."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_runs import SMALL, Runner, metrics

from megatron_recipes import train
from megatron_recipes.config import EncoderRun
from megatron_recipes.engine.parallel import single_process
from megatron_recipes.recipes import find_recipe


@pytest.fixture(scope="module", autouse=True)
def megatron() -> Iterator[None]:
    with single_process():
        yield


def rate(tokens: int) -> float:
    """Linear up to the peak, constant, then 1 - sqrt down to its share of the peak, as the papers write it."""
    peak, last = SMALL["optimizer.lr"], find_recipe("mursit_tiny")().schedule.min_lr_ratio
    if tokens < SMALL["schedule.warmup-tokens"]:
        return peak * tokens / SMALL["schedule.warmup-tokens"]
    left = SMALL["schedule.train-tokens"] - tokens
    if left >= SMALL["schedule.decay-tokens"]:
        return peak
    decayed = 1 - left / SMALL["schedule.decay-tokens"]
    return peak * (last + (1 - last) * (1 - math.sqrt(decayed)))


@pytest.mark.slow
def test_the_rate_of_every_step(reference: Path):
    found = {line["tokens"]: line["lr"] for line in metrics(reference) if "lr" in line}
    assert list(found) == [1024 * step for step in range(1, 7)]
    assert found == pytest.approx({tokens: rate(tokens) for tokens in found}, rel=1e-9)
    assert found[1024] == pytest.approx(1.5e-3, rel=1e-9) and found[4096] == 3e-3
    assert found[6144] == pytest.approx(3e-3 * find_recipe("mursit_tiny")().schedule.min_lr_ratio, rel=1e-9)


@pytest.fixture
def small(runner: Runner, tmp_path: Path):
    """The small run's configuration, with other values where they are given."""

    def config(**overrides: object) -> EncoderRun:
        command = runner.command(tmp_path / "run", **overrides)
        return train.parse(command[command.index("mursit_tiny") :])[0].config

    return config


def norm(gradients: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


@pytest.mark.parametrize("distributed", [True, False])
@pytest.mark.parametrize("limit", [0.01, 1000.0, 0.0])
def test_clipping(limit: float, distributed: bool, small, monkeypatch: pytest.MonkeyPatch):
    from megatron_recipes.engine.adam import FusedAdam
    from megatron_recipes.engine.setup import build_training
    from megatron_recipes.engine.step import train_step
    from megatron_recipes.engine.tasks import open_task

    switch = "optimizer.distributed" if distributed else "optimizer.no-distributed"
    config = small(**{"optimizer.clip-grad": limit, switch: True})
    task = open_task(config, verify=False)
    training = build_training(config, task.build_model())
    computed: list[torch.Tensor] = []
    used: list[torch.Tensor] = []
    step, clip = FusedAdam.step, training.optimizer.step

    def look_before_clipping():
        computed.extend(parameter.main_grad.clone() for parameter in training.model.parameters())
        return clip()

    def look_at_what_is_used(adam: FusedAdam):
        used.extend(p.grad.clone() for group in adam.param_groups for p in group["params"] if p.grad is not None)
        return step(adam)

    monkeypatch.setattr(training.optimizer, "step", look_before_clipping)
    monkeypatch.setattr(FusedAdam, "step", look_at_what_is_used)
    result = train_step(task, training, 1, stop=False)
    before, after = norm(computed), norm(used)
    assert before > 0.1 and result.grad_norm == pytest.approx(before, rel=1e-5)
    if limit == 0.01:
        assert after == pytest.approx(limit, rel=1e-4)
    else:
        assert sum(map(torch.numel, used)) == sum(map(torch.numel, computed))
        assert after == pytest.approx(before, rel=1e-12)  # the same numbers, summed in another order: not scaled by anything


def test_weight_decay_leaves_norms_and_biases_alone(small):
    from megatron_recipes.engine.setup import build_training
    from megatron_recipes.engine.tasks.masked import build_encoder

    config = small(**{"optimizer.no-distributed": True, "optimizer.weight-decay": 0.25})
    training = build_training(config, build_encoder(config))
    names = {id(parameter): name for name, parameter in training.model.named_parameters()}
    groups = training.optimizer.param_groups
    decay = {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decay.keys() == set(names.values())
    assert decay == {name: 0.0 if "norm" in name or name.endswith(".bias") else 0.25 for name in decay}
    assert 0.0 in decay.values() and decay["embedding.word_embeddings.weight"] == 0.25
