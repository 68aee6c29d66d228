"""FP8 settings are combinations that Megatron-Core takes; the others are refused with the flag to change."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from mecellem.errors import UserError
from megatron_recipes.config import Fp8Config, ParallelConfig
from megatron_recipes.engine import runtime
from megatron_recipes.models.fp8_settings import (
    FP8_SETTINGS,
    Fp8Machine,
    fp8_settings,
    refuse_fp8,
    refuse_fp8_machine,
    refuse_fp8_tokens,
)

runtime.install()  # before the tests import Megatron-Core

HOPPER = Fp8Machine(capability=(9, 0), cuda=(12, 9), transformer_engine=(2, 9))


def a_run(precision: str, fp8: Fp8Config = Fp8Config(), **changes: Any) -> Any:  # noqa: B008 (frozen)
    """What `refuse_fp8` reads of a run: SmolLM2-135M's shape."""
    model = {
        "num_layers": 30,
        "hidden_size": 576,
        "ffn_hidden_size": 1536,
        "num_attention_heads": 9,
        "num_query_groups": 3,
        "head_dim": 64,
    }
    return SimpleNamespace(
        precision=precision,
        fp8=fp8,
        model=SimpleNamespace(**{**model, **changes.pop("model", {})}),
        parallel=ParallelConfig(tensor=changes.pop("tensor", 1)),
        optimizer=SimpleNamespace(distributed=changes.pop("distributed", True)),
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_fp8_no_settings(precision: str):
    assert fp8_settings(precision, Fp8Config()) is None
    refuse_fp8(a_run(precision))
    refuse_fp8_tokens(precision, Fp8Config(), 7, "--micro-batch-tokens 7")


@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize("precision", FP8_SETTINGS)
def test_megatron_core_takes_every_setting_that_is_not_refused(precision: str, gather: bool):
    from megatron.core.transformer.transformer_config import TransformerConfig

    fp8 = Fp8Config(param_gather=gather)
    refuse_fp8(a_run(precision, fp8))
    settings = fp8_settings(precision, fp8)
    assert settings is not None
    config = TransformerConfig(num_layers=30, hidden_size=576, num_attention_heads=9, bf16=True, **settings)
    assert (config.fp8, config.fp8_recipe) == {
        "fp8_hybrid": ("hybrid", "delayed"),
        "fp8_current": ("hybrid", "tensorwise"),
        "fp8_block": ("e4m3", "blockwise"),
    }[precision]
    assert config.fp8_param is gather
    assert config.first_last_layers_bf16 is (precision != "fp8_hybrid")


def test_delayed_scaling_with_bf16_layers_is_refused_here_because_megatron_core_refuses_it():
    from megatron.core.transformer.transformer_config import TransformerConfig

    with pytest.raises(UserError, match=r"leave --fp8\.first-last-layers-bf16 out, or use --precision fp8_current"):
        refuse_fp8(a_run("fp8_hybrid", Fp8Config(first_last_layers_bf16=True)))
    settings = fp8_settings("fp8_hybrid", Fp8Config(first_last_layers_bf16=True))
    assert settings is not None
    with pytest.raises(ValueError, match="first / last layer"):
        TransformerConfig(num_layers=30, hidden_size=576, num_attention_heads=9, bf16=True, **settings)


def test_two_layers_in_bf16_of_two_leave_none():
    with pytest.raises(UserError, match="leaves none of the 2 layers"):
        refuse_fp8(a_run("fp8_current", model={"num_layers": 2}))
    refuse_fp8(a_run("fp8_current", Fp8Config(first_last_layers_bf16=False), model={"num_layers": 2}))


def test_param_gather_needs_the_distributed_optimizer():
    with pytest.raises(UserError, match=r"--optimizer\.no-distributed"):
        refuse_fp8(a_run("fp8_current", Fp8Config(param_gather=True), distributed=False))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"hidden_size": 568}}, "--model.hidden-size"),
        ({"model": {"ffn_hidden_size": 1544}}, "--model.ffn-hidden-size"),
        ({"model": {"ffn_hidden_size": 1552}, "tensor": 2}, "--model.ffn-hidden-size"),
        ({"model": {"head_dim": 8}}, "--model.num-attention-heads"),
        ({"model": {"head_dim": 16, "num_attention_heads": 8, "num_query_groups": 1}, "tensor": 4}, "--model.num-query-groups"),
    ],
)
def test_widths_that_fp8_units_cannot_multiply(changes: dict, named: str):
    with pytest.raises(UserError, match=named):
        refuse_fp8(a_run("fp8_current", **changes))
    refuse_fp8(a_run("fp8_current", Fp8Config(emulate=True), **changes))


def test_tokens_that_fp8_units_cannot_multiply():
    with pytest.raises(UserError, match=r"--micro-batch-tokens 1004 gives each rank 1004 tokens.*multiples of 8"):
        refuse_fp8_tokens("fp8_current", Fp8Config(), 1004, "--micro-batch-tokens 1004")
    refuse_fp8_tokens("fp8_current", Fp8Config(), 1024, "")
    refuse_fp8_tokens("fp8_current", Fp8Config(emulate=True), 1004, "")


def test_encoders_have_widths_too():
    encoder = SimpleNamespace(num_layers=22, hidden_size=768, ffn_hidden_size=1152, num_attention_heads=12)
    run = a_run("fp8_block")
    run.model = encoder
    refuse_fp8(run)


@pytest.mark.parametrize("precision", FP8_SETTINGS)
def test_machines(precision: str):
    refuse_fp8_machine(precision, HOPPER)
    for change, named in (
        ({"capability": (8, 0)}, "has 8.0: use --precision bf16"),
        ({"transformer_engine": None}, "there is none"),
        ({"transformer_engine": (1, 14)}, "1.14 is installed"),
    ):
        with pytest.raises(UserError, match=named):
            refuse_fp8_machine(precision, dataclasses.replace(HOPPER, **change))


def test_blocks_need_hopper_and_a_new_cuda():
    for change, named in (({"capability": (8, 9)}, "Hopper"), ({"cuda": (12, 8)}, "CUDA 12.9")):
        machine = dataclasses.replace(HOPPER, **change)
        refuse_fp8_machine("fp8_current", machine)
        with pytest.raises(UserError, match=named):
            refuse_fp8_machine("fp8_block", machine)
