"""Initial weights are a function of seed and name; a layout only decides who holds which part."""

from dataclasses import replace

import pytest
import torch

from megatron_recipes.engine import runtime
from megatron_recipes.engine.parallel import single_process

runtime.install()

from megatron_recipes.models.init import global_name, initial_weight, initialize_weights, name_seed, shard  # noqa: E402  (needs the runtime)

STD, LAYERS = 0.02, 8


def weight(name: str, shape: tuple[int, ...] = (200, 100), seed: int = 1) -> torch.Tensor:
    return initial_weight(name, torch.Size(shape), seed, STD, LAYERS)


def test_names_count_layers_in_the_whole_model():
    name = "encoder.layers.1.mlp.linear_fc1.weight"
    assert global_name(name, 0) == name
    assert global_name(name, 12) == "encoder.layers.13.mlp.linear_fc1.weight"
    assert global_name("decoder.layers.3.mlp.linear_fc1.weight", 12) == "decoder.layers.15.mlp.linear_fc1.weight"
    assert global_name("embedding.word_embeddings.weight", 12) == "embedding.word_embeddings.weight"


def test_seeds_differ_by_run_and_by_name_and_stay_what_they_were():
    assert len({name_seed(seed, name) for seed in (1, 2) for name in ("a", "b")}) == 4
    assert 0 <= name_seed(1, "a") < 2**63
    assert name_seed(1234, "embedding.word_embeddings.weight") == name_seed(1234, "embedding.word_embeddings.weight")


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("embedding.word_embeddings.weight", STD),
        ("encoder.layers.3.self_attention.linear_qkv.weight", STD),
        ("encoder.layers.3.mlp.linear_fc1.weight", STD),
        ("encoder.layers.3.self_attention.linear_proj.weight", STD / 4),  # sqrt(2 x 8 layers)
        ("encoder.layers.3.mlp.linear_fc2.weight", STD / 4),
        ("lm_head.dense.weight", STD / 4),
    ],
)
def test_truncated_normal(name: str, std: float):
    found = weight(name)
    assert found.abs().max() <= 2 * std
    assert found.std().item() == pytest.approx(0.88 * std, rel=0.02)  # of a normal cut at 2 standard deviations
    assert abs(found.mean().item()) < 0.03 * std
    assert torch.equal(found, weight(name)) and not torch.equal(found, weight(name, seed=2))


def test_decoders_draw_from_the_whole_normal_distribution():
    name, shape = "decoder.layers.0.mlp.linear_fc1.weight", torch.Size((400, 300))
    found = initial_weight(name, shape, 1, STD, LAYERS, truncation=None)
    assert found.std().item() == pytest.approx(STD, rel=0.01)
    assert 4 * STD < found.abs().max() < 6 * STD
    back = initial_weight("decoder.layers.0.mlp.linear_fc2.weight", shape, 1, STD, LAYERS, truncation=None)
    assert back.std().item() == pytest.approx(STD / 4, rel=0.01)  # sqrt(2 x 8 layers)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_a_decoders_weights(tied: bool):
    from hf_decoders import SHAPES, build

    shape = replace(SHAPES["qwen3, tied"], tie_embeddings=tied, init_std=STD)
    with single_process():
        model = build(shape)
        initialize_weights(model, seed=1)
        state = dict(model.named_parameters())
    assert ("output_layer.weight" in state) is not tied
    for name in ["embedding.word_embeddings.weight"] + ([] if tied else ["output_layer.weight"]):
        assert (state[name][shape.vocab_size :] == 0).all()  # vocabulary padding
        assert state[name][: shape.vocab_size].std().item() == pytest.approx(STD, rel=0.02)
        expected = initial_weight(name, torch.Size((shape.vocab_size, shape.hidden_size)), 1, STD, shape.num_layers, None)
        assert torch.equal(state[name][: shape.vocab_size], expected)
    assert (state["decoder.layers.2.self_attention.q_layernorm.weight"] == 1).all()


@pytest.mark.parametrize("name", ["encoder.final_layernorm.weight", "embedding_norm.weight", "lm_head.norm.weight"])
def test_norms_are_ones(name: str):
    assert torch.equal(weight(name, (5,)), torch.ones(5))


def test_biases_are_zero():
    assert torch.equal(weight("output_layer.bias", (5,)), torch.zeros(5))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("dim", [0, 1])
def test_shards_make_up_the_whole(size: int, dim: int):
    full = torch.arange(96.0).view(8, 12)
    assert torch.equal(torch.cat([shard(full, dim, 1, rank, size) for rank in range(size)], dim), full)


def test_gate_and_up_projection_are_split_one_by_one():
    full = torch.arange(8)[:, None]  # rows 0-3 gate, 4-7 up
    assert shard(full, 0, 2, 0, 2).flatten().tolist() == [0, 1, 4, 5]
    assert shard(full, 0, 2, 1, 2).flatten().tolist() == [2, 3, 6, 7]
