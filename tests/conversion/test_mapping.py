"""One table of names, used both ways: nothing is lost, nothing is left over, heads land where they belong."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.mapping import entries, qkv_to_hf, qkv_to_megatron, to_hf, to_megatron
from megatron_recipes.config import ModelConfig


def shape(layers: int = 3, heads: int = 2, head_dim: int = 4, vocab: int = 11) -> ModelConfig:
    return ModelConfig(layers, heads * head_dim, 3 * heads, heads, vocab, 32, local_attention=4)


def hf_model(model: ModelConfig) -> torch.nn.Module:
    from transformers import ModernBertForMaskedLM

    from conversion.hf_config import to_hf_config

    ids = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return ModernBertForMaskedLM(to_hf_config(model, ids, "float32"))


def test_the_table_is_complete():
    model = shape()
    names = {entry.hf for entry in entries(model)}
    tied = {"decoder.weight"}  # the embedding
    assert names == set(hf_model(model).state_dict()) - tied
    assert len({entry.megatron for entry in entries(model)}) == len(names)


@settings(max_examples=25)
@given(layers=st.integers(1, 4), heads=st.integers(1, 5), half=st.integers(1, 4), vocab=st.integers(6, 40))
def test_there_and_back(layers: int, heads: int, half: int, vocab: int):
    model = shape(layers, heads, 2 * half, vocab)
    state = {name: torch.randn_like(weight) for name, weight in hf_model(model).state_dict().items()}
    megatron = to_megatron(state, model)
    padded = {
        entry.megatron: torch.cat([megatron[entry.megatron], torch.ones(5, *megatron[entry.megatron].shape[1:])])
        if entry.vocabulary
        else megatron[entry.megatron]
        for entry in entries(model)
    }
    back = to_hf(padded, model)
    for entry in entries(model):
        assert torch.equal(back[entry.hf], state[entry.hf]), entry.hf
        assert back[entry.hf].is_contiguous()


def test_a_head_is_its_own_query_key_and_value():
    heads, width = 3, 2
    rows = [f"{part}{head}{channel}" for part in "qkv" for head in range(heads) for channel in range(width)]
    weight = torch.arange(len(rows))[:, None]
    grouped = [rows[i] for i in qkv_to_megatron(weight, heads).flatten().tolist()]
    assert grouped[: 3 * width] == ["q00", "q01", "k00", "k01", "v00", "v01"]
    assert grouped[-2:] == ["v20", "v21"]
    assert torch.equal(qkv_to_hf(qkv_to_megatron(weight, heads), heads), weight)


def test_a_missing_weight_is_noticed():
    model = shape()
    state = dict(hf_model(model).state_dict())
    del state["head.norm.weight"]
    with pytest.raises(KeyError, match=r"head\.norm\.weight"):
        to_megatron(state, model)
