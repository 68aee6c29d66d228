"""Emulated FP8: the numbers of the formats, Transformer Engine's scales, and the same numbers on every layout."""

import io
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fp8_ranks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_recipes.config import Fp8Config
from megatron_recipes.engine.parallel import single_process
from megatron_recipes.models.fp8_settings import FP8_SETTINGS, fp8_settings


@pytest.fixture(scope="module", autouse=True)
def megatron() -> Iterator[None]:
    with single_process():
        yield


def a_config(precision: str, **changes):
    from megatron.core.transformer.transformer_config import TransformerConfig

    fields = fp8_settings(precision, Fp8Config(first_last_layers_bf16=precision != "fp8_hybrid"))
    assert fields is not None
    return TransformerConfig(
        num_layers=4, hidden_size=64, num_attention_heads=4, use_cpu_initialization=True, params_dtype=torch.bfloat16,
        gradient_accumulation_fusion=False, **{**fields, **changes},
    )  # fmt: skip


def a_linear(precision: str, inputs: int = 64, outputs: int = 96, **changes):
    from megatron_recipes.models.fp8_emulation import EmulatedFp8ColumnParallelLinear

    torch.manual_seed(0)
    return EmulatedFp8ColumnParallelLinear(
        inputs, outputs, config=a_config(precision, **changes), init_method=lambda w: w.normal_(std=0.02), bias=False
    )


def numbers(rows: int = 40, width: int = 64, seed: int = 1, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(rows, 2, width, generator=torch.Generator().manual_seed(seed)).mul(scale).bfloat16()


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, in the Frobenius norm."""
    return float((found.detach().float() - expected.float()).norm() / expected.float().norm())


# ---- formats and scales


def test_e4m3_and_e5m2_round_to_their_own_numbers():
    from megatron_recipes.models.fp8_emulation import E4M3, E5M2, quantise

    one = torch.tensor(1.0)
    # by hand: E4M3 has steps of 1/8 from 1 to 2 and 2^-9 near zero; E5M2 of 1/4 and 2^-16
    x = torch.tensor([1.05, 1.07, 1.9375, 240.0, 2.0**-9, 2.0**-11, -0.3])
    expected = torch.tensor([1.0, 1.125, 2.0, 240.0, 2.0**-9, 0.0, -0.3125])
    assert torch.equal(quantise(x, one, E4M3).dequantise(), expected)
    x = torch.tensor([1.1, 1.13, 1.8, 2.0**-16, 2.0**-18, -0.3])
    expected = torch.tensor([1.0, 1.25, 1.75, 2.0**-16, 0.0, -0.3125])
    assert torch.equal(quantise(x, one, E5M2).dequantise(), expected)


def test_what_is_too_large_saturates_and_nan_stays():
    from megatron_recipes.models.fp8_emulation import E4M3, E5M2, quantise

    x = torch.tensor([1e6, -1e6, float("inf"), float("nan")])
    for dtype, largest in ((E4M3, 448.0), (E5M2, 57344.0)):
        found = quantise(x, torch.tensor(1.0), dtype).dequantise()
        assert found[:3].tolist() == [largest, -largest, largest] and found[3].isnan()


def test_scales_bring_the_largest_value_to_the_largest_number():
    from megatron_recipes.models.fp8_emulation import E4M3, E5M2, scale_of

    amax = torch.tensor([2.0, 448.0, 0.0, float("inf"), float("nan"), 1e-40])
    assert scale_of(amax, E4M3).tolist() == [224.0, 1.0, 1.0, 1.0, 1.0, torch.finfo(torch.float32).max]
    assert scale_of(torch.tensor(7.0), E5M2) == 8192
    assert scale_of(torch.tensor([2.0, 3.5, 3.6]), E4M3, power_of_two=True).tolist() == [128.0, 128.0, 64.0]


@given(st.floats(2.0**-60, 2.0**60), st.booleans())
@settings(max_examples=200, deadline=None)
def test_scaled_values_always_fit(amax: float, power_of_two: bool):
    from megatron_recipes.models.fp8_emulation import E4M3, scale_of

    scale = scale_of(torch.tensor(amax), E4M3, power_of_two)
    assert 224 * (1 - 1e-6) <= float(scale) * amax <= 448 * (1 + 1e-6)
    if power_of_two:
        assert math.frexp(float(scale))[0] == 0.5


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([(1, 128), (128, 1), (128, 128)]), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_block_amax_is_that_of_each_block(rows: int, columns: int, block: tuple[int, int], seed: int):
    from megatron_recipes.models.fp8_emulation import block_amax

    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    found = block_amax(x, *block)
    for i in range(0, rows, block[0]):
        for j in range(0, columns, block[1]):
            part = slice(i, i + block[0]), slice(j, j + block[1])
            assert (found[part] == x[part].abs().max()).all()


# ---- linears


@pytest.mark.parametrize("precision", FP8_SETTINGS)
def test_outputs_and_gradients_are_near_those_of_bf16(precision: str):
    layer, x = a_linear(precision), numbers().requires_grad_()
    gradient = numbers(width=96, seed=2, scale=1e-3)
    for _ in range(2):  # delayed scaling has a scale of its own from the second pass on
        x.grad = layer.weight.grad = None
        output = layer(x)[0]
        output.backward(gradient)
    weight, flat, flat_gradient = layer.weight.float(), x.detach().float().flatten(0, 1), gradient.float().flatten(0, 1)
    # rounding to E4M3 has a relative error of at most 1/16, uniformly 3.6%; E5M2 twice that; products of two have both
    backward = 0.045 if precision == "fp8_block" else 0.07
    assert 0.02 < error(output, x.detach().float() @ weight.t()) < 0.045
    assert 0.02 < error(x.grad, gradient.float() @ weight) < backward
    assert 0.02 < error(layer.weight.grad, flat_gradient.t() @ flat) < backward
    assert output.dtype == x.grad.dtype == layer.weight.grad.dtype == torch.bfloat16


def test_current_scaling_is_the_exact_product_of_rounded_numbers():
    from megatron_recipes.models.fp8_emulation import E4M3, E5M2

    def rounded(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        scale = torch.finfo(dtype).max / value.float().abs().max()
        return (value.float() * scale).to(dtype).double() / scale.double()

    layer, x, gradient = a_linear("fp8_current"), numbers().requires_grad_(), numbers(width=96, seed=2)
    output = layer(x)[0]
    output.backward(gradient)
    w, flat = layer.weight.detach(), x.detach().flatten(0, 1)
    flat_gradient = gradient.flatten(0, 1)
    expected = rounded(flat, E4M3) @ rounded(w, E4M3).t()
    torch.testing.assert_close(output.flatten(0, 1).double(), expected, rtol=2**-8, atol=1e-6)
    expected = rounded(flat_gradient, E5M2) @ rounded(w, E4M3)
    torch.testing.assert_close(x.grad.flatten(0, 1).double(), expected, rtol=2**-8, atol=1e-6)
    expected = rounded(flat_gradient, E5M2).t() @ rounded(flat, E4M3)
    torch.testing.assert_close(layer.weight.grad.double(), expected, rtol=2**-8, atol=1e-5)


def test_blocks_protect_small_numbers_from_a_large_neighbour():
    """A feature a million times the others takes the E4M3 range of its tensor, or only of its own block."""
    x = numbers(width=256)
    x[..., 200] = 1e6
    errors = {}
    for precision in ("fp8_current", "fp8_block"):
        layer = a_linear(precision, inputs=256)
        with torch.no_grad():
            layer.weight[:, 128:] = 0  # what is left is the first block's
            errors[precision] = error(layer(x)[0], x.float() @ layer.weight.float().t())
    assert errors["fp8_block"] < 0.045 < 0.15 < errors["fp8_current"]


@pytest.mark.parametrize("precision", FP8_SETTINGS)
def test_zeros_give_zeros_and_nan_spreads(precision: str):
    layer = a_linear(precision)
    output = layer(torch.zeros(8, 1, 64, dtype=torch.bfloat16, requires_grad=True))[0]
    output.backward(torch.zeros_like(output))
    assert not output.any() and not layer.weight.grad.any()
    x = numbers()
    x[3, 0, 5] = float("nan")
    output = layer(x)[0]
    assert output[3, 0].isnan().all() and output[:3].isfinite().all()


def test_delayed_scaling_uses_the_past():
    layer = a_linear("fp8_hybrid", fp8_amax_history_len=3, fp8_margin=1)
    state = layer.fp8_scaling
    weight = float(layer.weight.abs().max())
    for step, size in enumerate((1.0, 8.0, 2.0, 2.0, 2.0)):
        x = torch.full((8, 1, 64), size, dtype=torch.bfloat16, requires_grad=True)
        before = state.scale.clone()
        layer(x)[0].backward(torch.full((8, 1, 96), size / 1024, dtype=torch.bfloat16))
        if step == 0:
            assert before.tolist() == [1.0, 1.0, 1.0]
    assert state.amax_history.tolist() == [[2.0] * 3, [pytest.approx(weight)] * 3, [2 / 1024] * 3]
    assert state.scale.tolist() == [448 / 2 / 2, pytest.approx(448 / weight / 2), 57344 / (2 / 1024) / 2]


def test_delayed_scaling_takes_the_longest_or_the_newest():
    for algorithm, expected in (("max", 448 / 8), ("most_recent", 448 / 2)):
        layer = a_linear("fp8_hybrid", fp8_amax_compute_algo=algorithm)
        for size in (8.0, 2.0):
            layer(torch.full((8, 1, 64), size, dtype=torch.bfloat16, requires_grad=True))
        assert layer.fp8_scaling.scale[0] == expected


def test_evaluation_and_infinities_leave_the_scales_alone():
    layer, x = a_linear("fp8_hybrid"), numbers()
    layer(x.requires_grad_())
    before = {name: value.clone() for name, value in layer.fp8_scaling.state_dict().items()}
    layer.eval()(x * 100)
    with torch.no_grad():
        layer.train()(x * 100)
    assert all(torch.equal(before[name], value) for name, value in layer.fp8_scaling.state_dict().items())
    layer((x * float("inf")).detach().requires_grad_())
    assert torch.equal(layer.fp8_scaling.scale[0], before["scale"][0])


def test_the_state_stays_fp32_and_a_resumed_layer_goes_on_bit_for_bit():
    layer = a_linear("fp8_hybrid").bfloat16()
    assert {value.dtype for value in layer.fp8_scaling.state_dict().values()} == {torch.float32}
    for seed in range(3):
        layer(numbers(seed=seed, scale=2.0**seed).requires_grad_())[0].backward(numbers(width=96, seed=seed))
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    resumed = a_linear("fp8_hybrid")
    resumed.load_state_dict(torch.load(buffer))
    outputs = []
    for each in (layer, resumed):
        for seed in (7, 8):
            x = numbers(seed=seed, scale=3.0).requires_grad_()
            output = each(x)[0]
            output.backward(numbers(width=96, seed=seed))
            outputs.append((output, x.grad))
    for first, second in zip(outputs[:2], outputs[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_checkpoints_hold_the_state_and_weights_load_without_it():
    from megatron.core import parallel_state

    from megatron_recipes.models.fp8_emulation import without_fp8_state

    metadata = {"dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True)}
    state = a_linear("fp8_hybrid").sharded_state_dict("decoder.layers.0.mlp.linear_fc1.", metadata=metadata)
    prefix = "decoder.layers.0.mlp.linear_fc1"
    assert {f"{prefix}.weight", f"{prefix}.fp8_scaling.scale", f"{prefix}.fp8_scaling.amax_history"} <= set(state)
    assert "fp8_scaling" not in " ".join(without_fp8_state(state)) and f"{prefix}.weight" in without_fp8_state(state)
    assert not any("fp8" in name for name in a_linear("fp8_current").sharded_state_dict(prefix, metadata=metadata))


def a_decoder(precision: str) -> torch.nn.Module:
    from megatron_recipes.config import DecoderConfig, ParallelConfig
    from megatron_recipes.models.decoder import DecoderModel, decoder_transformer_config
    from megatron_recipes.models.init import initialize_weights

    model = DecoderConfig(
        family="qwen3", num_layers=4, hidden_size=64, ffn_hidden_size=96, num_attention_heads=4, num_query_groups=2,
        head_dim=16, vocab_size=300, max_sequence_length=64, rope_theta=1e4,
    )  # fmt: skip
    fp8 = fp8_settings(precision, Fp8Config(first_last_layers_bf16=precision != "fp8_hybrid", emulate=True))
    config = decoder_transformer_config(model, ParallelConfig(), torch.bfloat16, fp8)
    decoder = DecoderModel(config, model, linears="fp8_emulated" if fp8 else "plain")
    initialize_weights(decoder, 1)
    return decoder.bfloat16()  # as Megatron-Core's Float16Module does


def loss_of(decoder: torch.nn.Module, seed: int) -> torch.Tensor:
    ids = torch.randint(300, (2, 33), generator=torch.Generator().manual_seed(seed))
    return decoder(ids[:, :-1].contiguous(), labels=ids[:, 1:].contiguous()).sum()


@pytest.mark.parametrize("precision", FP8_SETTINGS)
def test_a_decoder_in_emulated_fp8_is_near_the_one_in_bf16(precision: str):
    emulated, plain = a_decoder(precision), a_decoder("bf16")
    for seed in range(2):
        for decoder in (emulated, plain):
            decoder.zero_grad()
            loss_of(decoder, seed).backward()
    assert 0 < abs(float(loss_of(emulated, 3) / loss_of(plain, 3)) - 1) < 2e-3
    for (name, found), expected in zip(emulated.named_parameters(), plain.parameters(), strict=True):
        assert error(found.grad, expected.grad) < 0.25, name  # errors add up over four layers


def test_a_decoder_resumes_from_a_checkpoint_bit_for_bit_and_starts_from_bf16_weights(tmp_path: Path):
    from megatron.core import dist_checkpointing, parallel_state

    from megatron_recipes.models.fp8_emulation import without_fp8_state

    metadata = {"dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True)}
    trained = a_decoder("fp8_hybrid")
    for seed in range(3):
        loss_of(trained, seed).backward()
    for name, model in (("fp8", trained), ("bf16", a_decoder("bf16"))):
        (tmp_path / name).mkdir()
        dist_checkpointing.save(model.sharded_state_dict(metadata=metadata), str(tmp_path / name))
    resumed, started = a_decoder("fp8_hybrid"), a_decoder("fp8_hybrid")
    assert not torch.equal(loss_of(resumed.eval(), 5), loss_of(trained.eval(), 5))  # the scales matter
    resumed.load_state_dict(dist_checkpointing.load(resumed.sharded_state_dict(metadata=metadata), str(tmp_path / "fp8")))
    losses = []
    for decoder in (trained.train(), resumed.train()):
        decoder.zero_grad()
        loss = loss_of(decoder, 5)
        loss.backward()
        losses.append((loss, *(parameter.grad for parameter in decoder.parameters()), *decoder.buffers()))
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))
    asked = without_fp8_state(started.sharded_state_dict(metadata=metadata))
    started.load_state_dict(dist_checkpointing.load(asked, str(tmp_path / "bf16")))
    assert torch.equal(started.decoder.layers[1].mlp.linear_fc1.fp8_scaling.scale, torch.ones(3))


def test_first_and_last_layers_get_megatron_cores_own_linears():
    from megatron.core.tensor_parallel.layers import ColumnParallelLinear

    from megatron_recipes.models.fp8_emulation import EmulatedFp8RowParallelLinear, emulated_linears

    config = a_config("fp8_current")
    kinds = [emulated_linears(config, layer) for layer in range(4)]
    assert [kind[0] is ColumnParallelLinear for kind in kinds] == [True, False, False, True]
    assert kinds[1][1] is EmulatedFp8RowParallelLinear
    kinds = [emulated_linears(a_config("fp8_hybrid"), layer) for layer in range(4)]
    assert all(kind[1] is EmulatedFp8RowParallelLinear for kind in kinds)


# ---- layouts


def on_two_ranks(folder: Path, sequence: str) -> list[dict[str, dict[str, torch.Tensor]]]:
    commands = [[sys.executable, fp8_ranks.__file__, str(rank), "2", sequence, str(folder)] for rank in range(2)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for command in commands]
    try:
        for rank in ranks:
            _, complaint = rank.communicate(timeout=120)
            assert rank.returncode == 0, complaint
    finally:
        for rank in ranks:
            rank.kill()
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("sequence", ["whole", "sequence"])
def test_tensor_and_sequence_parallel_compute_what_one_rank_computes(sequence: str, tmp_path: Path):
    ranks = on_two_ranks(tmp_path, sequence)
    for precision in FP8_SETTINGS:
        alone = fp8_ranks.train(precision, rank=0, tensor=1, sequence=False)
        assert len(alone) >= 2 * fp8_ranks.STEPS
        for found in (rank[precision] for rank in ranks):
            assert found.keys() == alone.keys()
            for name, expected in alone.items():
                if "fp8_scaling" in name:  # scales come from amaxes of outputs summed in another order
                    torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-7, msg=f"{precision} {name}")
                else:  # a sum in another order can round one number in a thousand to its FP8 neighbour
                    assert error(found[name], expected) < 2e-3, f"{precision} {name}"
