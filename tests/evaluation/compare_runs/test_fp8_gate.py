"""Emulated FP8 trains a small language model like BF16 and passes the gate; bad FP8 settings do not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from written_runs import write_run

from evaluation.compare_runs import main
from megatron_recipes.config import Fp8Config
from megatron_recipes.engine.parallel import single_process
from megatron_recipes.models.fp8_settings import fp8_settings

VOCABULARY, WIDTH, STEPS, BATCH = 64, 64, 240, 256


@pytest.fixture(scope="module", autouse=True)
def megatron() -> Iterator[None]:
    with single_process():
        yield


class SmallModel(torch.nn.Module):
    """The next token from the last two: embeddings, two residual blocks of two parallel linears each, an output layer."""

    def __init__(self, fp8: dict | None) -> None:
        from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
        from megatron.core.transformer.transformer_config import TransformerConfig

        from megatron_recipes.models.fp8_emulation import emulated_linears

        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def normal(weight: torch.Tensor) -> torch.Tensor:
            return weight.data.normal_(std=0.08, generator=generator)

        config = TransformerConfig(
            num_layers=2, hidden_size=WIDTH, num_attention_heads=4, use_cpu_initialization=True, bf16=True,
            params_dtype=torch.bfloat16, gradient_accumulation_fusion=False, **(fp8 or {}),
        )  # fmt: skip
        column, row = emulated_linears(config, 0) if fp8 else (ColumnParallelLinear, RowParallelLinear)
        options = {"config": config, "init_method": normal, "bias": False, "skip_bias_add": False}
        self.embedding = torch.nn.Embedding(2 * VOCABULARY, WIDTH)
        normal(self.embedding.weight)
        self.up = torch.nn.ModuleList([column(WIDTH, 2 * WIDTH, gather_output=False, **options) for _ in range(2)])
        self.down = torch.nn.ModuleList([row(2 * WIDTH, WIDTH, input_is_parallel=True, **options) for _ in range(2)])
        self.output = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        normal(self.output.weight)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        hidden = (self.embedding(pairs[:, 0]) + self.embedding(pairs[:, 1] + VOCABULARY))[:, None]
        for up, down in zip(self.up, self.down, strict=True):
            normed = torch.nn.functional.rms_norm(hidden, (WIDTH,)).bfloat16()
            hidden = hidden + down(torch.nn.functional.gelu(up(normed)[0]))[0].float()
        return self.output(hidden[:, 0])


def train(fp8: dict | None) -> tuple[list[float], list[float]]:
    """Losses and gradient norms on a second-order Markov chain; the same batches whatever the precision."""
    generator = torch.Generator().manual_seed(1)
    first, second, last = torch.randn(3, VOCABULARY, 16, generator=generator)
    chain = ((first[:, None] + second).tanh() @ last.t()).softmax(-1)  # [first, second, next]
    model = SmallModel(fp8)
    master = [p.detach().float() for p in model.parameters()]  # as Megatron-Core's optimizer keeps them
    optimizer = torch.optim.Adam(master, lr=3e-3)
    losses, norms = [], []
    for _ in range(STEPS):
        pairs = torch.randint(VOCABULARY, (BATCH, 2), generator=generator)
        labels = torch.multinomial(chain[pairs[:, 0], pairs[:, 1]], 1, generator=generator)[:, 0]
        loss = torch.nn.functional.cross_entropy(model(pairs), labels)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for weight, gradient in zip(master, gradients, strict=True):
            weight.grad = gradient.float()
        norms.append(float(torch.nn.utils.clip_grad_norm_(master, 1.0)))
        optimizer.step()
        with torch.no_grad():
            for parameter, weight in zip(model.parameters(), master, strict=True):
                parameter.copy_(weight)
        losses.append(float(loss.detach()))
    return losses, norms


@pytest.fixture(scope="module")
def bf16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    losses, norms = train(None)
    assert losses[-1] < losses[0] - 0.3  # it learns
    return write_run(tmp_path_factory.mktemp("gate") / "bf16", losses, norms)


def verdict(bf16: Path, folder: Path, precision: str, **changes) -> int:
    settings = fp8_settings(precision, Fp8Config(first_last_layers_bf16=False))
    assert settings is not None
    run = write_run(folder / precision, *train({**settings, **changes}), config__precision=precision)
    return main([str(bf16), str(run)])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp8_hybrid", "fp8_current", "fp8_block"])
def test_every_recipe_passes(bf16: Path, tmp_path: Path, precision: str):
    assert verdict(bf16, tmp_path, precision) == 0


@pytest.mark.slow
def test_a_margin_that_pushes_everything_below_the_smallest_number_is_caught(bf16: Path, tmp_path: Path):
    assert verdict(bf16, tmp_path, "fp8_hybrid", fp8_margin=20) == 1


@pytest.mark.slow
def test_two_bits_of_mantissa_everywhere_are_caught(bf16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from megatron_recipes.models import fp8_emulation

    monkeypatch.setattr(fp8_emulation, "E4M3", torch.float8_e5m2)
    assert verdict(bf16, tmp_path, "fp8_current") == 1
