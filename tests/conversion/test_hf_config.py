"""`config.json` and our shape say the same, both ways; what one cannot say is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hf_folders import SHAPES, decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.hf_config import from_hf_config, read_hf_config, special_ids, to_hf_config
from mecellem.errors import UserError
from megatron_recipes.config import DecoderConfig, EncoderConfig, ModelConfig, RopeScaling
from megatron_recipes.recipes import RECIPES, find_recipe

IDS = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
SHAPE = EncoderConfig(5, 64, 96, 4, 1000, 256, local_attention=16, global_attention_every=2, global_rope_theta=80_000.0)


def saved(folder: Path, model: ModelConfig = SHAPE, **changes: object) -> Path:
    to_hf_config(model, IDS if isinstance(model, EncoderConfig) else {}, "float32").save_pretrained(folder)
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
    assert read(saved(tmp_path, find_recipe(name)().model)) == find_recipe(name)().model


@pytest.mark.parametrize("name", SHAPES)
def test_every_kind(name: str, tmp_path: Path):
    assert read(saved(tmp_path, SHAPES[name])) == SHAPES[name]


scalings = st.one_of(
    st.just(RopeScaling()),
    st.builds(
        RopeScaling,
        rope_type=st.just("yarn"),
        factor=st.floats(1.0, 64.0, exclude_min=True),
        original_max_position_embeddings=st.integers(64, 1 << 17),
        beta_fast=st.floats(8.0, 64.0),
        beta_slow=st.floats(0.5, 4.0),
    ),
    st.builds(
        RopeScaling,
        rope_type=st.just("llama3"),
        factor=st.floats(1.0, 64.0, exclude_min=True),
        original_max_position_embeddings=st.integers(64, 1 << 17),
        low_freq_factor=st.floats(0.5, 2.0),
        high_freq_factor=st.floats(3.0, 8.0),
    ),
)


@settings(max_examples=30)
@given(
    family=st.sampled_from(["qwen3", "llama"]),
    groups=st.integers(1, 4),
    theta=st.floats(1e2, 1e7),
    epsilon=st.sampled_from([1e-5, 1e-6]),
    tied=st.booleans(),
    scaling=scalings,
)
def test_decoders_there_and_back(family, groups, theta, epsilon, tied, scaling, tmp_path_factory):
    model = decoder(
        family=family,
        num_attention_heads=4 * groups,
        hidden_size=64 * groups,
        num_query_groups=groups,
        rope_theta=theta,
        norm_epsilon=epsilon,
        tie_embeddings=tied,
        rope_scaling=scaling,
    )
    assert read(saved(tmp_path_factory.mktemp("config"), model)) == model


# Qwen/Qwen3-1.7B's config.json as it was published (transformers 4.51), with what a user adds for long contexts
PUBLISHED = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_1P7B = DecoderConfig(
    family="qwen3",
    num_layers=28,
    hidden_size=2048,
    ffn_hidden_size=6144,
    num_attention_heads=16,
    num_query_groups=8,
    head_dim=128,
    vocab_size=151936,
    max_sequence_length=40960,
    rope_theta=1_000_000.0,
)


def published(folder: Path, **changes: object) -> Path:
    (folder / "config.json").write_text(json.dumps({**PUBLISHED, **changes}))
    return folder


def test_the_older_names_of_published_folders(tmp_path: Path):
    assert read(published(tmp_path)) == QWEN3_1P7B
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    expected = RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)
    assert read(published(tmp_path, rope_scaling=scaling)).rope_scaling == expected
    scaling["type"] = scaling.pop("rope_type")
    assert read(published(tmp_path, rope_scaling=scaling)).rope_scaling == expected
    scaling["attention_factor"] = 1.1386294361119891  # what follows from the factor
    assert read(published(tmp_path, rope_scaling=scaling)).rope_scaling == expected


def test_what_is_written_equals_what_was_published(tmp_path: Path):
    config = read_hf_config(published(tmp_path))
    written = to_hf_config(QWEN3_1P7B, special_ids(tmp_path, QWEN3_1P7B), "bfloat16").to_dict()
    original = config.to_dict()
    different = {name for name in original.keys() | written.keys() if original.get(name) != written.get(name)}
    assert different <= {"transformers_version", "_name_or_path"}, {
        name: (original.get(name), written.get(name)) for name in different
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2': this version converts modernbert, qwen3 and llama"),
        ({"model_type": "qwen3_moe", "num_experts": 8}, "model_type 'qwen3_moe'"),
        ({"attention_bias": True}, "attention_bias = True, this version converts only False"),
        ({"use_sliding_window": True, "sliding_window": 4096}, "use_sliding_window = True"),
        ({"layer_types": ["full_attention"] * 27 + ["sliding_attention"]}, "layers with a sliding window"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        ({"quantization_config": {"quant_method": "fp8"}}, "has a quantization_config"),
        ({"num_attention_heads": "many"}, "is not a config of qwen3"),
        ({"num_attention_heads": 15}, "--model.num-attention-heads 15 does not divide by"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, r"scales RoPE in a way .*\(rope_type linear\)"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7, "original_max_position_embeddings": 4096}},
            r"\(rope_type yarn with mscale\)",
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 2.0}},
            r"\(rope_type yarn with attention_factor\)",
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "Missing required keys"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "Missing required keys"),
    ],
)
def test_decoders_that_are_refused(changes: dict, sentence: str, tmp_path: Path):
    with pytest.raises(UserError, match=sentence):
        read(published(tmp_path, **changes))


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
NO_NUMBERS = ["4", True, float("inf"), float("nan"), [1], {}, 10**400]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:10])
@pytest.mark.parametrize(
    "key", ["rope_theta", "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor"]
)
def test_what_is_no_number_gets_one_sentence(key: str, value: object, tmp_path: Path):
    """Ours, or transformers' where its own look at the same values stumbles first."""
    changes = {key: value} if key == "rope_theta" else {"rope_scaling": {**YARN, key: value}}
    with pytest.raises(UserError) as caught:
        read(published(tmp_path, **changes))
    sentence = str(caught.value)
    ours = f"{tmp_path}/config.json has {key} = {value!r:.60}: it must be a finite number"
    assert sentence == ours or sentence.startswith(f"{tmp_path}/config.json is not a config of qwen3 (")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rope_theta": "x"}, "has rope_theta = 'x': it must be a finite number"),
        ({"rope_theta": None}, "has rope_theta = None: it must be a finite number"),
        ({"rope_scaling": {**YARN, "factor": "4"}}, "has factor = '4': it must be a finite number"),
        ({"rope_scaling": {**YARN, "factor": 1.0}}, r"config\.json: factor is 1: it must be above 1"),
        (
            {"rope_scaling": {**YARN, "original_max_position_embeddings": 2.5}},
            "original_max_position_embeddings is 2.5: it must",
        ),
        ({"rope_scaling": {**YARN, "truncate": "yes"}}, r"\(rope_type yarn with truncate\)"),
        ({"rope_scaling": {**YARN, "partial_rotary_factor": True}}, "has partial_rotary_factor = True: it must be a finite"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, r"\(rope_type \['yarn'\]\)"),
        ({"rms_norm_eps": float("inf")}, "has rms_norm_eps = inf: it must be a finite number"),
        ({"initializer_range": float("inf")}, "has initializer_range = inf: it must be a finite number"),
    ],
)
def test_numbers_that_are_refused(changes: dict, sentence: str, tmp_path: Path):
    with pytest.raises(UserError, match=sentence):
        read(published(tmp_path, **changes))


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:10])
def test_encoder_bases_that_are_no_numbers(value: object, tmp_path: Path):
    plain = {"rope_type": "default", "rope_theta": 1e4}
    changed = {"full_attention": {**plain, "rope_theta": value}, "sliding_attention": plain}
    with pytest.raises(UserError, match=r"has rope_theta of full_attention = .*: it must be a finite number"):
        read(saved(tmp_path, rope_parameters=changed))


def test_ids_of_special_tokens(tmp_path: Path, sample_tokenizer: Path):
    assert special_ids(published(tmp_path), QWEN3_1P7B) == {
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "pad_token_id": None,
    }
    assert special_ids(sample_tokenizer, QWEN3_1P7B)["eos_token_id"] is not None
    (tmp_path / "config.json").unlink()
    (tmp_path / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 4}')
    assert special_ids(tmp_path, QWEN3_1P7B) == {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 4}


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
