"""The Adam that Megatron-Core's distributed optimizer can save and load computes what torch's does."""

import copy

import pytest
import torch

from megatron_recipes.engine.adam import FusedAdam

SETTINGS = {"lr": 3e-3, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 5), (11,), (1, 3, 2))]


def train(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator) * 10.0 ** (step % 3 - 1)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 / (1 + step)  # the schedule changes it between steps
        optimizer.step()


@pytest.mark.parametrize(("decoupled", "peer"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)])
def test_equals_torch(decoupled: bool, peer: type[torch.optim.Optimizer]):
    ours, theirs = parameters(), parameters()
    train(FusedAdam(ours, **SETTINGS, adam_w_mode=decoupled), ours, range(8))
    train(peer(theirs, **SETTINGS), theirs, range(8))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_state_goes_on_bit_for_bit():
    whole, halved = parameters(), parameters()
    train(FusedAdam(whole, **SETTINGS), whole, range(6))
    first = FusedAdam(halved, **SETTINGS)
    train(first, halved, range(3))
    state = copy.deepcopy(first.state_dict())
    assert state["param_groups"][0]["step"] == 3  # in the group, where Megatron-Core looks for it
    assert all(set(entry) == {"exp_avg", "exp_avg_sq"} for entry in state["state"].values())
    second = FusedAdam(halved, **SETTINGS)
    second.load_state_dict(state)
    train(second, halved, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, halved, strict=True))


def test_groups_have_their_own_decay_and_parameters_without_gradient_stay():
    weights = parameters()
    before = [weight.detach().clone() for weight in weights]
    groups = [{"params": weights[:1], "weight_decay": 0.5}, {"params": weights[1:], "weight_decay": 0.0}]
    optimizer = FusedAdam(groups, lr=0.1)
    weights[0].grad, weights[1].grad = torch.zeros_like(weights[0]), torch.zeros_like(weights[1])
    optimizer.step()
    torch.testing.assert_close(weights[0].detach(), before[0] * 0.95)
    assert torch.equal(weights[1], before[1]) and torch.equal(weights[2], before[2])
    assert weights[2] not in optimizer.state
