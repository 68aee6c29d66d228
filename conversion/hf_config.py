"""Our shape of a model <-> transformers' config; what the one cannot say of the other is refused, never dropped."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from mecellem.tokenizer_files import MODEL_CONFIG, read_json
from megatron_recipes.config import DecoderConfig, EncoderConfig, ModelConfig, RopeScaling

if TYPE_CHECKING:
    from transformers import PretrainedConfig

KNOWN = ("modernbert", "qwen3", "llama")  # model_type of config.json

# What our models compute; a folder that asks for something else would convert into another function.
FIXED: dict[str, dict[str, Any]] = {
    "modernbert": {
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "classifier_bias": False,
        "decoder_bias": True,
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "tie_word_embeddings": True,
    },
    "qwen3": {"attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "use_sliding_window": False},
    "llama": {"attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "mlp_bias": False},
}
# Names of transformers' rope_parameters that `RopeScaling` holds, for each kind of scaling
SCALING = {
    "yarn": ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}


def model_type(model: ModelConfig) -> str:
    """The `model_type` of a model's `config.json`."""
    return "modernbert" if isinstance(model, EncoderConfig) else model.family


def special_ids(folder: Path, model: ModelConfig) -> dict[str, Any]:
    """The ids that a model's `config.json` names, by role, from the tokenizer folder that travels with its weights.

    A decoder's are those of the config that was imported (the tokenizer alone does not tell: Qwen3 names a first token that
    its tokenizer never adds), else those of its generation settings, else the tokenizer's.
    """
    if isinstance(model, EncoderConfig):
        return tokenizer_ids(folder)
    roles = ("bos_token_id", "eos_token_id", "pad_token_id")
    for name in (MODEL_CONFIG, "config.json", "generation_config.json"):
        if (folder / name).exists():
            values = read_json(folder / name)
            return {role: values.get(role) for role in roles}
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return {role: getattr(tokenizer, role) for role in roles}


def tokenizer_ids(folder: Path) -> dict[str, Any]:
    """The ids that a ModernBERT config names, by role, from a tokenizer folder (`pad_token_id`, `cls_token_id`, ...)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.bos_token_id or tokenizer.cls_token_id,
        "eos_token_id": tokenizer.eos_token_id or tokenizer.sep_token_id,
    }
    missing = [name for name, value in ids.items() if value is None]
    if missing:
        raise UserError(f"the tokenizer in {folder} has no {', '.join(missing)}: an encoder needs them")
    return ids


def to_hf_config(model: ModelConfig, ids: dict[str, Any], dtype: str) -> PretrainedConfig:
    """The `config.json` of a model. `dtype` is torch's name of the weights' type, `ids` are `special_ids`."""
    if isinstance(model, EncoderConfig):
        return _modernbert(model, ids, dtype)
    from transformers import LlamaConfig, Qwen3Config

    cls, name = (Qwen3Config, "Qwen3ForCausalLM") if model.family == "qwen3" else (LlamaConfig, "LlamaForCausalLM")
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": model.rope_theta}
    kind = model.rope_scaling.rope_type
    if kind != "none":
        rope |= {"rope_type": kind} | {field: getattr(model.rope_scaling, field) for field in SCALING[kind]}
    return cls(
        architectures=[name],
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.ffn_hidden_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_query_groups,
        head_dim=model.head_dim,
        max_position_embeddings=model.max_sequence_length,
        initializer_range=model.init_std,
        rms_norm_eps=model.norm_epsilon,
        rope_parameters=rope,
        tie_word_embeddings=model.tie_embeddings,
        dtype=dtype,
        **FIXED[model.family],
        **ids,
    )


def _modernbert(model: EncoderConfig, ids: dict[str, Any], dtype: str) -> PretrainedConfig:
    from transformers import ModernBertConfig

    layer_types = ["full_attention" if model.is_global(i) else "sliding_attention" for i in range(model.num_layers)]
    return ModernBertConfig(
        architectures=["ModernBertForMaskedLM"],
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.ffn_hidden_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_attention_heads,
        max_position_embeddings=model.max_sequence_length,
        initializer_range=model.init_std,
        norm_eps=model.norm_epsilon,
        layer_types=layer_types,
        local_attention=model.local_attention,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": model.global_rope_theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": model.local_rope_theta},
        },
        attention_dropout=model.attention_dropout,
        mlp_dropout=model.hidden_dropout,
        embedding_dropout=model.hidden_dropout,
        dtype=dtype,
        **FIXED["modernbert"],
        **ids,
    )


def read_hf_config(folder: Path) -> PretrainedConfig:
    """The config of a Hugging Face folder. Raises `UserError` for a folder that is none or holds another architecture."""
    from transformers import AutoConfig

    path = folder / "config.json"
    values = read_json(path)
    kind = values.get("model_type")
    if kind not in KNOWN:
        raise UserError(f"{path} says model_type {kind!r}: this version converts {', '.join(KNOWN[:-1])} and {KNOWN[-1]}")
    if values.get("quantization_config"):
        raise UserError(f"{path} has a quantization_config: convert the weights to float32 or bfloat16 first")
    try:
        return AutoConfig.from_pretrained(str(folder))
    except Exception as error:  # its own validators raise their own types
        raise UserError(f"{path} is not a config of {kind} ({' '.join(str(error).split())[:200]})") from None


def from_hf_config(config: Any, folder: Path) -> ModelConfig:
    """Our view of a Hugging Face config. Raises `UserError` for whatever Megatron would compute differently."""
    for name, value in FIXED[config.model_type].items():
        found = getattr(config, name)
        if found != value:
            raise UserError(f"{folder}/config.json has {name} = {found!r}, this version converts only {value!r}")
    model = _encoder(config, folder) if config.model_type == "modernbert" else _decoder(config, folder)
    model.check()
    return model


def _decoder(config: Any, folder: Path) -> DecoderConfig:
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        raise UserError(f"{folder}/config.json has layers with a sliding window: not supported")
    return DecoderConfig(
        family=config.model_type,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.intermediate_size,
        num_attention_heads=config.num_attention_heads,
        num_query_groups=config.num_key_value_heads,
        head_dim=config.head_dim,
        vocab_size=config.vocab_size,
        max_sequence_length=config.max_position_embeddings,
        rope_theta=_number(config.rope_parameters["rope_theta"], "rope_theta", folder),
        rope_scaling=_rope_scaling(config.rope_parameters, folder),
        norm_epsilon=_number(config.rms_norm_eps, "rms_norm_eps", folder),
        tie_embeddings=config.tie_word_embeddings,
        init_std=_number(config.initializer_range, "initializer_range", folder),
    )


def _number(value: Any, name: str, folder: Path) -> float:
    """A number of `config.json`. transformers lets others pass, JSON in Python knows `Infinity`, and `true` counts as 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise UserError(f"{folder}/config.json has {name} = {value!r:.60}: it must be a finite number")
    return float(value)


def _rope_scaling(rope: dict[str, Any], folder: Path) -> RopeScaling:
    kind = rope["rope_type"] if isinstance(rope["rope_type"], str) else repr(rope["rope_type"])
    given = {
        name: value for name, value in rope.items() if value is not None and name not in ("rope_type", "rope_theta", "type")
    }
    numbers = {
        name: _number(value, name, folder)
        for name, value in given.items()
        if name in (*SCALING.get(kind, ()), "attention_factor", "partial_rotary_factor")
    }
    if numbers.get("partial_rotary_factor") == 1.0:
        del given["partial_rotary_factor"]
    if kind == "yarn":  # what transformers computes when they are not given
        usual = 0.1 * math.log(max(1.0, numbers.get("factor", 1.0))) + 1.0
        if math.isclose(numbers.get("attention_factor", usual), usual):
            given.pop("attention_factor", None)
        if given.get("truncate") is True:
            del given["truncate"]
    unknown = sorted(given.keys() - SCALING.get(kind, ()))
    if kind not in ("default", *SCALING) or unknown:
        what = f"rope_type {kind}" + (f" with {', '.join(unknown)}" if kind in SCALING else "")
        raise UserError(f"{folder}/config.json scales RoPE in a way that this version does not know ({what})")
    if kind == "default":
        return RopeScaling()
    values: dict[str, Any] = {"rope_type": kind, **{name: numbers[name] for name in given}}
    length = "original_max_position_embeddings"
    if length in values and values[length].is_integer():
        values[length] = int(values[length])
    scaling = RopeScaling(**values)
    problem = scaling.problem()
    if problem:
        raise UserError(f"{folder}/config.json: {' '.join(problem)}")
    return scaling


def _encoder(config: Any, folder: Path) -> EncoderConfig:
    rope = config.rope_parameters
    for kind in ("full_attention", "sliding_attention"):
        if rope[kind]["rope_type"] != "default":
            raise UserError(f"{folder}/config.json scales RoPE ({rope[kind]['rope_type']}): not supported")
    if not config.mlp_dropout == config.embedding_dropout:
        raise UserError(f"{folder}/config.json has mlp_dropout and embedding_dropout of different size: not supported")
    return EncoderConfig(
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.intermediate_size,
        num_attention_heads=config.num_attention_heads,
        vocab_size=config.vocab_size,
        max_sequence_length=config.max_position_embeddings,
        local_attention=config.local_attention,
        global_attention_every=_period(list(config.layer_types), folder),
        local_rope_theta=_number(rope["sliding_attention"]["rope_theta"], "rope_theta of sliding_attention", folder),
        global_rope_theta=_number(rope["full_attention"]["rope_theta"], "rope_theta of full_attention", folder),
        norm_epsilon=_number(config.norm_eps, "norm_eps", folder),
        init_std=_number(config.initializer_range, "initializer_range", folder),
        hidden_dropout=config.mlp_dropout,
        attention_dropout=config.attention_dropout,
    )


def _period(layer_types: list[str], folder: Path) -> int:
    """N of "every n-th layer is global, beginning with the first"."""
    found = [i for i, kind in enumerate(layer_types) if kind == "full_attention"]
    period = found[1] - found[0] if len(found) > 1 else len(layer_types)
    expected = ["full_attention" if i % period == 0 else "sliding_attention" for i in range(len(layer_types))]
    if layer_types != expected:
        raise UserError(f"{folder}/config.json has layer_types that are not periodic from the first layer: not supported")
    return period
