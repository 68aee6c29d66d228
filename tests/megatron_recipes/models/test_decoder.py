"""Qwen3 and Llama in Megatron-Core compute what transformers' classes compute."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hf_decoders import LLAMA3, SHAPES, YARN, build, hf_class, hf_config, megatron_state, pair, tokens

from megatron_recipes.config import DecoderConfig, RopeScaling
from megatron_recipes.engine.parallel import single_process
from megatron_recipes.models.rope import rope_frequencies

BOUNDARIES = [0, 7, 8, 50, 80, 113, 160]  # two rows of 80: a one-token document, and both rows start one
SCALED = [
    replace(SHAPES["qwen3, tied"], rope_scaling=YARN),
    replace(SHAPES["qwen3, tied"], rope_scaling=replace(YARN, beta_fast=8.0, beta_slow=2.0, factor=1.5)),
    replace(SHAPES["llama, untied, every head its own"], rope_scaling=LLAMA3),
    replace(SHAPES["llama, tied"], rope_scaling=replace(LLAMA3, low_freq_factor=0.5, high_freq_factor=8.0)),
]


@pytest.fixture(scope="module", autouse=True)
def megatron() -> Iterator[None]:
    with single_process():
        yield


def labels_for(x: torch.Tensor) -> torch.Tensor:
    """The next tokens, some of them without a label."""
    labels = x.roll(-1, dims=1)
    labels[:, -1] = -100
    labels[:, ::5] = -100
    return labels


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_logits(name: str):
    shape = SHAPES[name]
    ours, theirs = pair(shape)
    x = tokens(shape, 3, 100)
    found, expected = ours(x), theirs(x).logits
    assert (found[..., : shape.vocab_size] - expected).abs().max() <= 1e-5
    assert expected.abs().max() > 0.1  # the comparison is of something


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_packed_documents_equal_documents_alone(name: str):
    shape = SHAPES[name]
    ours, theirs = pair(shape)
    x = tokens(shape, 2, 80)
    packed = ours(x, cu_seqlens=torch.tensor(BOUNDARIES, dtype=torch.int32)).flatten(0, 1)[:, : shape.vocab_size]
    for start, end in itertools.pairwise(BOUNDARIES):
        alone = theirs(x.flatten()[None, start:end]).logits[0]
        assert (packed[start:end] - alone).abs().max() <= 1e-5


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("packed", [False, True])
def test_losses_and_gradients(name: str, packed: bool):
    shape = SHAPES[name]
    ours, theirs = pair(shape)
    x = tokens(shape, 2, 80)
    labels = labels_for(x)
    pieces = list(itertools.pairwise(BOUNDARIES if packed else [0, 80, 160]))
    logits = torch.cat([theirs(x.flatten()[None, start:end]).logits[0] for start, end in pieces])
    expected = torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="none")
    expected.mean().backward()
    cu_seqlens = torch.tensor(BOUNDARIES, dtype=torch.int32) if packed else None
    losses = ours.train()(x, labels=labels, cu_seqlens=cu_seqlens)
    assert losses.shape == x.shape and losses.dtype == torch.float32
    torch.testing.assert_close(losses.flatten(), expected, atol=1e-5, rtol=1e-5)
    assert (losses[labels < 0] == 0).all()
    losses.mean().backward()
    gradients = megatron_state({n: p.grad for n, p in theirs.named_parameters()}, shape)
    for parameter_name, parameter in ours.named_parameters():
        expected_gradient = gradients[parameter_name]
        found = parameter.grad[: len(expected_gradient)]
        torch.testing.assert_close(found, expected_gradient, atol=2e-6, rtol=1e-4, msg=parameter_name)
        assert (parameter.grad[len(expected_gradient) :] == 0).all()  # vocabulary padding
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x, labels=labels, cu_seqlens=cu_seqlens), losses.detach())


@pytest.mark.parametrize("shape", SCALED, ids=lambda shape: f"{shape.family} {shape.rope_scaling.rope_type}")
@torch.no_grad()
def test_scaled_positions(shape: DecoderConfig):
    ours, theirs = pair(shape)
    x = tokens(shape, 2, 200)  # beyond the 64 positions of "pre-training"
    assert (ours(x)[..., : shape.vocab_size] - theirs(x).logits).abs().max() <= 1e-5
    plain = build(replace(shape, rope_scaling=RopeScaling())).eval()
    plain.load_state_dict(ours.state_dict())
    assert (ours(x) - plain(x)).abs().nan_to_num().max() > 1e-3  # the scaling does something
    plain.set_rope(shape.rope_theta, shape.rope_scaling)  # as between the stages of a curriculum
    assert torch.equal(plain(x), ours(x))


@torch.no_grad()
def test_another_theta_between_stages():
    shape = SHAPES["qwen3, tied"]
    ours, _ = pair(shape)
    other = hf_class(shape)(hf_config(replace(shape, rope_theta=5e6))).eval()
    state = pair(shape)[1].state_dict()
    other.load_state_dict(state)
    x = tokens(shape, 1, 120)
    ours.set_rope(5e6, RopeScaling())
    assert (ours(x)[..., : shape.vocab_size] - other(x).logits).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["Yarn", "dynamic", "default"])
def test_an_unknown_scaling_is_never_computed_as_none(kind: str):
    with pytest.raises(AssertionError, match=kind):
        rope_frequencies(32, 1e6, replace(YARN, rope_type=kind))


@torch.no_grad()
def test_given_positions_replace_those_of_the_documents():
    shape = SHAPES["qwen3, tied"]
    ours, theirs = pair(shape)
    x = tokens(shape, 1, 60)
    positions = torch.arange(60)[None] + 100
    expected = theirs(x, position_ids=positions).logits
    assert (ours(x, positions=positions)[..., : shape.vocab_size] - expected).abs().max() <= 1e-5
    cu_seqlens = torch.tensor([0, 25, 60], dtype=torch.int32)
    implied = torch.cat([torch.arange(25), torch.arange(35)])[None]
    assert torch.equal(ours(x, cu_seqlens=cu_seqlens), ours(x, cu_seqlens=cu_seqlens, positions=implied))


@torch.no_grad()
def test_nothing_looks_ahead_or_into_another_document():
    shape = SHAPES["llama, tied"]
    ours, _ = pair(shape)
    x = tokens(shape, 2, 80)
    cu_seqlens = torch.tensor(BOUNDARIES, dtype=torch.int32)
    before = ours(x, cu_seqlens=cu_seqlens).flatten(0, 1)
    changed = x.clone()
    changed.view(-1)[30:50] = 7  # the end of the document 8-50
    after = ours(changed, cu_seqlens=cu_seqlens).flatten(0, 1)
    assert torch.equal(after[:30], before[:30]) and torch.equal(after[50:], before[50:])
    assert not torch.equal(after[31:50], before[31:50])


@torch.no_grad()
def test_vocabulary_padding_has_no_probability():
    shape = SHAPES["llama, tied"]  # 333 entries, padded to 384
    ours, _ = pair(shape)
    logits = ours(tokens(shape, 1, 10))
    assert logits.shape == (1, 10, 384)
    assert (logits[..., 333:] == float("-inf")).all() and logits[..., :333].isfinite().all()


def test_bf16_weights_keep_exact_positions():
    shape = SHAPES["qwen3, tied"]
    ours = build(shape)
    expected = ours.rope_frequencies.clone()
    assert torch.equal(ours.bfloat16().rope_frequencies, expected)


def test_rows_without_labels_give_no_loss_and_no_nan():
    shape = SHAPES["qwen3, untied, one group"]
    ours, _ = pair(shape)
    x = tokens(shape, 1, 20)
    losses = ours.train()(x, labels=torch.full_like(x, -100))
    assert (losses == 0).all()
    losses.sum().backward()
    assert all((p.grad == 0).all() for p in ours.parameters())


@torch.no_grad()
def test_emulated_fp8_leaves_the_outer_layers_plain():
    from megatron.core.tensor_parallel.layers import ColumnParallelLinear

    from megatron_recipes.config import Fp8Config, ParallelConfig
    from megatron_recipes.models.decoder import DecoderModel, decoder_transformer_config
    from megatron_recipes.models.fp8_settings import fp8_settings

    shape = SHAPES["qwen3, tied"]
    ours, _ = pair(shape)
    settings = fp8_settings("fp8_current", Fp8Config(emulate=True))
    config = decoder_transformer_config(shape, ParallelConfig(), torch.float32, settings)
    emulated = DecoderModel(config, shape, linears="fp8_emulated").eval()
    emulated.load_state_dict(ours.state_dict())
    plain = [type(layer.self_attention.linear_qkv) is ColumnParallelLinear for layer in emulated.decoder.layers]
    assert plain == [True, False, True]
    x = tokens(shape, 1, 32)
    difference = (emulated(x) - ours(x))[..., : shape.vocab_size].abs().max()
    assert 1e-4 < difference < 0.3
