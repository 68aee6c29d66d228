"""ModernBERT in Megatron-Core computes what transformers' ModernBERT computes."""

import itertools
from collections.abc import Iterator

import pytest
import torch

from megatron_recipes.config import EncoderConfig, ParallelConfig
from megatron_recipes.engine.parallel import single_process

SHAPES = {
    "thirds global": EncoderConfig(5, 64, 96, 4, 500, 256, local_attention=16, global_rope_theta=160_000.0),
    "all global": EncoderConfig(3, 96, 160, 3, 333, 256, global_attention_every=1, norm_epsilon=1e-6),
    "one global, narrow window": EncoderConfig(4, 128, 200, 2, 1000, 256, local_attention=4, global_attention_every=9),
    "window wider than the text": EncoderConfig(3, 32, 48, 2, 129, 512, local_attention=256, local_rope_theta=500.0),
}


@pytest.fixture(scope="module", autouse=True)
def megatron() -> Iterator[None]:
    with single_process():
        yield


def pair(shape: EncoderConfig, seed: int = 0) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same random weights, norms and biases included, in both libraries."""
    from transformers import ModernBertForMaskedLM

    from conversion.hf_config import to_hf_config
    from conversion.mapping import entries, group
    from conversion.megatron_model import build

    torch.manual_seed(seed)
    ids = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    hf = ModernBertForMaskedLM(to_hf_config(shape, ids, "float32")).eval()
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.5)
            else:
                parameter.normal_(std=0.05)
    ours = build(shape, ParallelConfig(), torch.float32).eval()
    with torch.no_grad():
        for entry in entries(shape):
            (name,) = entry.hf
            weight = hf.state_dict()[name]
            parameter = ours.get_parameter(entry.megatron).zero_()  # the vocabulary's padding stays zero
            parameter[: len(weight)].copy_(group([weight], shape) if entry.layout == "grouped" else weight)
    return ours, hf


def tokens(shape: EncoderConfig, rows: int, length: int) -> torch.Tensor:
    return torch.randint(5, shape.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_logits_without_padding(name: str):
    shape = SHAPES[name]
    ours, hf = pair(shape)
    x = tokens(shape, 3, 100)
    assert (ours(x)[..., : shape.vocab_size] - hf(x).logits).abs().max() <= 1e-5


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_logits_with_padding(name: str, side: str):
    shape = SHAPES[name]
    ours, hf = pair(shape)
    x = tokens(shape, 4, 90)
    mask = torch.ones_like(x)
    for row, length in enumerate((90, 61, 13, 1)):
        padding = slice(length, None) if side == "right" else slice(0, 90 - length)
        mask[row, padding], x[row, padding] = 0, 0
    keep = mask.bool()
    difference = ours(x, attention_mask=mask)[..., : shape.vocab_size][keep] - hf(x, attention_mask=mask).logits[keep]
    assert difference.abs().max() <= 1e-5


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_packed_documents_equal_documents_alone(name: str):
    shape = SHAPES[name]
    ours, hf = pair(shape)
    x = tokens(shape, 2, 80)
    boundaries = [0, 7, 8, 50, 80, 113, 160]  # a one-token document, and both rows start one
    packed = ours(x, cu_seqlens=torch.tensor(boundaries, dtype=torch.int32)).reshape(160, -1)[:, : shape.vocab_size]
    for start, end in itertools.pairwise(boundaries):
        alone = hf(x.flatten()[None, start:end]).logits[0]
        assert (packed[start:end] - alone).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["thirds global", "all global", "one global, narrow window"])
@torch.no_grad()
def test_contents_of_padding_never_reach_a_real_token(name: str):
    shape = SHAPES[name]
    ours, _ = pair(shape)
    x = tokens(shape, 2, 60)
    mask = torch.ones_like(x)
    mask[0, 40:], mask[1, 9:] = 0, 0
    keep = mask.bool()
    before = ours(x, attention_mask=mask)[keep]
    x[~keep] = torch.randint(5, shape.vocab_size, (int((~keep).sum()),))
    assert torch.equal(ours(x, attention_mask=mask)[keep], before)


@torch.no_grad()
def test_a_document_never_sees_its_neighbour():
    shape = SHAPES["thirds global"]
    ours, _ = pair(shape)
    x = tokens(shape, 1, 60)
    cu_seqlens = torch.tensor([0, 30, 60], dtype=torch.int32)
    before = ours(x, cu_seqlens=cu_seqlens)[0, :30]
    x[0, 30:] = 7
    assert torch.equal(ours(x, cu_seqlens=cu_seqlens)[0, :30], before)


def test_masked_losses_and_accuracy_are_cross_entropy_over_the_real_vocabulary():
    shape = SHAPES["thirds global"]
    ours, hf = pair(shape)
    x = tokens(shape, 3, 50)
    labels = torch.full_like(x, -100)
    labels[:, ::7] = x[:, ::7]
    with torch.no_grad():
        logits = hf(x).logits
        masked = labels >= 0
        expected = torch.nn.functional.cross_entropy(logits[masked], labels[masked], reduction="none")
        losses, right = ours(x, labels=labels)
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(right.bool(), logits[masked].argmax(-1) == labels[masked])
    ours.train()
    torch.testing.assert_close(ours(x, labels=labels).detach(), expected, atol=1e-5, rtol=1e-5)


def test_gradients_equal_transformers():
    shape = SHAPES["thirds global"]
    from conversion.mapping import entries, grouped_views

    ours, hf = pair(shape)
    x = tokens(shape, 2, 64)
    labels = torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.3, x, -100)
    ours.train()
    ours(x, labels=labels).mean().backward()
    hf(x, labels=labels).loss.backward()
    found = {}
    for entry in entries(shape):
        (name,) = entry.hf
        gradient = ours.get_parameter(entry.megatron).grad
        if entry.layout == "grouped":
            gradient = grouped_views(gradient, shape, 1)[0].flatten(0, 2)
        found[name] = gradient[: shape.vocab_size] if entry.vocabulary else gradient
    for name, parameter in hf.named_parameters():
        if name != "model.embeddings.tok_embeddings.weight":
            torch.testing.assert_close(found[name], parameter.grad, atol=2e-6, rtol=1e-4, msg=name)
    embedding = found["model.embeddings.tok_embeddings.weight"]
    torch.testing.assert_close(embedding, hf.get_input_embeddings().weight.grad, atol=2e-6, rtol=1e-4)


def test_a_batch_without_masked_tokens_gives_no_loss_and_no_nan():
    shape = SHAPES["thirds global"]
    ours, _ = pair(shape)
    ours.train()
    losses = ours(tokens(shape, 1, 20), labels=torch.full((1, 20), -100))
    assert losses.numel() == 0
    losses.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in ours.parameters())


@torch.no_grad()
def test_initial_weights_follow_modernbert():
    from megatron_recipes.models.init import initialize_weights

    shape = SHAPES["thirds global"]
    ours, _ = pair(shape)
    initialize_weights(ours, seed=1)
    state = ours.state_dict()
    assert state["encoder.layers.1.self_attention.linear_qkv.weight"].abs().max() <= 2 * shape.init_std
    assert state["encoder.layers.1.mlp.linear_fc2.weight"].abs().max() <= 2 * shape.init_std / (2 * shape.num_layers) ** 0.5
    assert (state["embedding.word_embeddings.weight"][shape.vocab_size :] == 0).all()
    first = state["encoder.layers.1.self_attention.linear_qkv.weight"].clone()
    initialize_weights(ours, seed=2)
    assert not torch.equal(first, ours.state_dict()["encoder.layers.1.self_attention.linear_qkv.weight"])


def test_fp8_settings_are_a_combination_that_megatron_core_takes():
    from megatron_recipes.config import Fp8Config
    from megatron_recipes.models.fp8_settings import fp8_settings
    from megatron_recipes.models.modernbert import encoder_config

    fp8 = fp8_settings("fp8_current", Fp8Config())
    config = encoder_config(SHAPES["thirds global"], ParallelConfig(), torch.bfloat16, fp8)
    assert (config.fp8, config.fp8_recipe, config.first_last_layers_bf16) == ("hybrid", "tensorwise", True)
