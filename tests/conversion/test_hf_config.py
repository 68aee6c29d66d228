"""`config.json` and our shape say the same, both ways; what one cannot say is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.hf_config import from_hf_config, read_hf_config, to_hf_config
from mecellem.errors import UserError
from megatron_recipes.config import ModelConfig
from megatron_recipes.recipes import RECIPES, find_recipe

IDS = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
SHAPE = ModelConfig(5, 64, 96, 4, 1000, 256, local_attention=16, global_attention_every=2, global_rope_theta=80_000.0)


def saved(folder: Path, model: ModelConfig = SHAPE, **changes: object) -> Path:
    to_hf_config(model, IDS, "float32").save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def read(folder: Path) -> ModelConfig:
    return from_hf_config(read_hf_config(folder), folder)


@settings(max_examples=25)
@given(
    layers=st.integers(1, 9),
    every=st.integers(1, 12),
    local=st.integers(1, 200),
    theta=st.floats(1e2, 1e7),
    dropout=st.sampled_from([0.0, 0.1]),
)
def test_there_and_back(layers, every, local, theta, dropout, tmp_path_factory):
    model = replace(SHAPE, num_layers=layers, global_attention_every=every, local_attention=2 * local)
    model = replace(model, local_rope_theta=theta, hidden_dropout=dropout, attention_dropout=dropout / 2)
    found = read(saved(tmp_path_factory.mktemp("config"), model))
    assert replace(found, global_attention_every=every) == model
    assert [found.is_global(i) for i in range(layers)] == [model.is_global(i) for i in range(layers)]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str, tmp_path: Path):
    model = find_recipe(name)().model
    assert read(saved(tmp_path, model)) == model


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attention_bias": True}, "attention_bias = True, this version converts only False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ({"mlp_dropout": 0.1}, "mlp_dropout and embedding_dropout of different size"),
        ({"layer_types": ["sliding_attention"] * 4 + ["full_attention"]}, "not periodic from the first layer"),
        ({"model_type": "roberta"}, "model_type 'roberta'"),
        ({"local_attention": 15}, "must be an even number"),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                }
            },
            "scales RoPE (linear)",
        ),
    ],
)
def test_refusals(changes: dict, sentence: str, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        read(saved(tmp_path, **changes))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("text", "sentence"), [("{", "is not JSON"), (None, "is not a Hugging Face model folder")])
def test_no_config(text: str | None, sentence: str, tmp_path: Path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_hf_config(tmp_path)
