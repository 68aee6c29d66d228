"""A new run's FP32 master weights are what was drawn or read, also where parameters keep it in FP8 only.

Transformer Engine's parameters stood in for: ordinary ones, rounded to E4M3 after everything that is copied into them. It
shows what this project and Megatron-Core do with such parameters, not what Transformer Engine does.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_recipes.config import DecoderConfig, DecoderRun, Fp8Config
from megatron_recipes.engine import runtime
from megatron_recipes.engine.parallel import single_process
from megatron_recipes.recipes import find_recipe

runtime.install()

from megatron_recipes.engine import checkpoint, loop  # noqa: E402  (needs the runtime)
from megatron_recipes.engine.setup import Training, build_training, optimizer_config  # noqa: E402
from megatron_recipes.engine.tasks.causal import build_decoder  # noqa: E402
from megatron_recipes.models.init import initialize_weights  # noqa: E402

TINY = DecoderConfig(
    family="qwen3",
    num_layers=4,
    hidden_size=32,
    ffn_hidden_size=48,
    num_attention_heads=4,
    num_query_groups=2,
    head_dim=16,
    vocab_size=200,
    max_sequence_length=64,
    rope_theta=1e4,
)
LINEARS = ("linear_qkv.weight", "linear_proj.weight", "linear_fc1.weight", "linear_fc2.weight")


@pytest.fixture
def config() -> DecoderRun:
    recipe = find_recipe("smollm2_135m_cpt")()
    assert isinstance(recipe, DecoderRun)
    return replace(recipe, model=TINY, precision="bf16", layer_spec="local", init_from=None)


@pytest.fixture
def process() -> Iterator[None]:
    with single_process():
        yield


def in_fp8(config: DecoderRun) -> DecoderRun:
    return replace(config, precision="fp8_current", fp8=Fp8Config(param_gather=True))


def parameters(training: Training) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in training.model.named_parameters()}


def masters(training: Training) -> dict[str, torch.Tensor]:
    """The FP32 weights that the optimizer updates, in the shapes of their parameters (one rank has whole ones)."""
    named = training.model.named_parameters()
    return {name: parameter.main_param.detach().view(parameter.shape).clone() for name, parameter in named}


@torch.no_grad()
def round_to_fp8(model: torch.nn.Module, *unused: Any) -> None:
    """What a parameter in FP8 does with what is copied into it."""
    for name, parameter in model.named_parameters():
        if name.endswith(LINEARS):
            scale = 448 / parameter.abs().max().float()
            parameter.copy_((parameter.float() * scale).to(torch.float8_e4m3fn).float() / scale)


def in_rounded_parameters(config: DecoderRun, seed: int) -> Training:
    """A model whose linears are rounded to FP8, and an optimizer that has only seen them so."""
    model = build_decoder(replace(config, seed=seed))
    round_to_fp8(model)
    return build_training(config, model)


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name].float(), weight.float()), name


def test_random_weights_are_those_of_a_run_in_bf16(process: None, config: DecoderRun):
    expected = parameters(build_training(config, build_decoder(config)))
    training = in_rounded_parameters(config, config.seed)
    assert not torch.equal(
        masters(training)["decoder.layers.1.mlp.linear_fc1.weight"], expected["decoder.layers.1.mlp.linear_fc1.weight"].float()
    )
    loop.set_start(in_fp8(config), training)
    assert_equal(masters(training), expected)


def saved(folder: Path, config: DecoderRun) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint of weights that no seed of the tests gives, and these."""
    model = build_decoder(config)
    initialize_weights(model, seed=77)
    meta = checkpoint.CheckpointMeta(0, 0, TINY, "bf16", "", checkpoint.layout(), {}, "")
    folder.mkdir(exist_ok=True)
    path = checkpoint.save(folder / "step_0000000", meta, model, None, folder)
    return path, {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_imported_weights_are_not_rounded(process: None, config: DecoderRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from megatron.core import fp8_utils

    folder, expected = saved(tmp_path, config)
    training = in_rounded_parameters(config, seed=1)
    training.model.register_load_state_dict_post_hook(round_to_fp8)
    # a checkpoint is read into dequantised copies of such parameters
    own = {parameter.data_ptr() for name, parameter in training.model.named_parameters() if name.endswith(LINEARS)}
    monkeypatch.setattr(
        fp8_utils, "is_float8tensor", lambda tensor: isinstance(tensor, torch.Tensor) and tensor.data_ptr() in own
    )
    monkeypatch.setattr(fp8_utils, "dequantize_fp8_tensor", torch.clone)
    loop.set_start(replace(in_fp8(config), init_from=folder), training)
    assert_equal(masters(training), expected)
    name = "decoder.layers.1.mlp.linear_fc1.weight"
    assert not torch.equal(parameters(training)[name], expected[name])


def test_a_checkpoint_holds_dequantised_weights(process: None, config: DecoderRun, tmp_path: Path, monkeypatch: Any):
    from megatron.core import fp8_utils

    _, plain = saved(tmp_path / "plain", config)
    monkeypatch.setattr(fp8_utils, "is_float8tensor", lambda tensor: isinstance(tensor, torch.Tensor) and tensor.ndim == 2)
    monkeypatch.setattr(fp8_utils, "dequantize_fp8_tensor", lambda tensor: tensor.detach() * 2)  # to tell it by
    doubled, _ = saved(tmp_path / "doubled", config)
    monkeypatch.undo()
    model = build_decoder(config)
    found = {name: weight.clone() for name, weight in checkpoint.load_weights(doubled, model).items() if name in plain}
    assert_equal(found, {name: weight * 2 if weight.ndim == 2 else weight for name, weight in plain.items()})


@pytest.mark.parametrize("distributed", [True, False])
def test_imported_weights_in_bf16(process: None, config: DecoderRun, tmp_path: Path, distributed: bool):
    config = replace(config, optimizer=replace(config.optimizer, distributed=distributed))
    folder, expected = saved(tmp_path, config)
    training = build_training(config, build_decoder(config))
    loop.set_start(replace(config, init_from=folder), training)
    assert_equal(parameters(training), expected)
    if distributed:
        assert_equal(masters(training), expected)
    else:
        main = [
            weight
            for part in training.optimizer.chained_optimizers
            for group in part.fp32_from_float16_groups
            for weight in group
        ]
        assert sum(weight.double().sum() for weight in main) == sum(weight.double().sum() for weight in expected.values())


@pytest.mark.parametrize(
    ("precision", "recipe"),
    [("fp32", None), ("bf16", None), ("fp8_hybrid", "delayed"), ("fp8_current", "tensorwise"), ("fp8_block", "blockwise")],
)
def test_the_optimizer_knows_how_weights_are_scaled(config: DecoderRun, precision: Any, recipe: str | None):
    """Megatron-Core slices flat views of FP8 weights where it is not told, and block scaling's weights have none."""
    assert optimizer_config(replace(config, precision=precision)).fp8_recipe == recipe
