from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from mecellem.errors import UserError
from post_training.model_folder import (
    check_model_folder,
    check_whole,
    count_parameters,
    load_masked_lm,
    load_tokenizer,
    model_sha256,
    pick_device,
)
from post_training.start import pooled


@pytest.fixture
def copy(small_model, tmp_path):
    return shutil.copytree(small_model, tmp_path / "copy")


def test_accepts_and_loads_a_whole_folder(small_model):
    check_model_folder(small_model)
    model = load_masked_lm(small_model, "cpu")
    assert not model.training and next(model.parameters()).dtype == torch.float32
    assert count_parameters(small_model) == sum(parameter.numel() for parameter in model.parameters())
    assert load_tokenizer(small_model).mask_token == "[MASK]"


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="is not a model folder"):
        check_model_folder(tmp_path / "none")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing.*convert export"):
        check_model_folder(copy)


def test_tokenizer_larger_than_the_embedding(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] - 1}))
    with pytest.raises(UserError, match="belongs to another model"):
        check_model_folder(copy)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("config.json", "{", "is not JSON"),
        ("config.json", "[]", "not a JSON object"),
        ("config.json", "{}", "no vocab_size"),
        ("tokenizer.json", "{}", "not a tokenizer"),
    ],
)
def test_broken_files(copy, name, text, sentence):
    (copy / name).write_text(text)
    with pytest.raises(UserError, match=sentence):
        check_model_folder(copy)


def test_hash_follows_weights_and_tokenizer(copy, small_model):
    assert model_sha256(copy) == model_sha256(small_model)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert model_sha256(copy) != model_sha256(small_model)


def test_missing_gpu_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(UserError, match="no CUDA device"):
        pick_device("cuda:1")


def drop(folder, *names):
    """Take weights out of a folder's model.safetensors."""
    tensors = load_file(folder / "model.safetensors")
    for name in names:
        del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_missing_are_not_drawn_at_random(copy):
    drop(copy, "model.layers.0.mlp.Wi.weight", "head.dense.weight")
    check_model_folder(copy)
    with pytest.raises(UserError, match=r"lacks head\.dense\.weight and 1 other weights of ModernBertForMaskedLM"):
        load_masked_lm(copy, "cpu")
    with pytest.raises(UserError, match=r"lacks layers\.0\.mlp\.Wi\.weight of ModernBertModel"):
        pooled(copy, "mean", None, "cpu")


def test_an_encoder_needs_neither_head_nor_pooler(copy, tmp_path):
    drop(copy, "head.dense.weight", "head.norm.weight", "decoder.bias")
    assert len(pooled(copy, "mean", None, "cpu")) == 3
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    check_whole(BertModel.from_pretrained(tmp_path / "bert"))
