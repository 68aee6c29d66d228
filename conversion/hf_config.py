"""`ModelConfig` <-> transformers' `ModernBertConfig`; what the one cannot say of the other is refused, never dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from megatron_recipes.config import ModelConfig

if TYPE_CHECKING:
    from transformers import ModernBertConfig

# What our ModernBERT computes; a folder that asks for something else would convert into another function.
FIXED: dict[str, Any] = {
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
    "tie_word_embeddings": True,
}


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


def to_hf_config(model: ModelConfig, ids: dict[str, Any], dtype: str) -> ModernBertConfig:
    """The `config.json` of a model. `dtype` is torch's name of the weights' type."""
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
        **FIXED,
        **ids,
    )


def read_hf_config(folder: Path) -> ModernBertConfig:
    """The config of a Hugging Face folder. Raises `UserError` for a folder that is none or holds another architecture."""
    from transformers import AutoConfig

    path = folder / "config.json"
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {folder} is not a Hugging Face model folder") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from None
    if kind != "modernbert":
        raise UserError(f"{path} says model_type {kind!r}: this version converts modernbert")
    return AutoConfig.from_pretrained(str(folder))


def from_hf_config(config: Any, folder: Path) -> ModelConfig:
    """Our view of a Hugging Face config. Raises `UserError` for whatever Megatron would compute differently."""
    for name, value in FIXED.items():
        found = getattr(config, name)
        if found != value:
            raise UserError(f"{folder}/config.json has {name} = {found!r}, this version converts only {value!r}")
    rope = config.rope_parameters
    for kind in ("full_attention", "sliding_attention"):
        if rope[kind]["rope_type"] != "default":
            raise UserError(f"{folder}/config.json scales RoPE ({rope[kind]['rope_type']}): not supported")
    if not config.mlp_dropout == config.embedding_dropout:
        raise UserError(f"{folder}/config.json has mlp_dropout and embedding_dropout of different size: not supported")
    model = ModelConfig(
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.intermediate_size,
        num_attention_heads=config.num_attention_heads,
        vocab_size=config.vocab_size,
        max_sequence_length=config.max_position_embeddings,
        local_attention=config.local_attention,
        global_attention_every=_period(list(config.layer_types), folder),
        local_rope_theta=rope["sliding_attention"]["rope_theta"],
        global_rope_theta=rope["full_attention"]["rope_theta"],
        norm_epsilon=config.norm_eps,
        init_std=config.initializer_range,
        hidden_dropout=config.mlp_dropout,
        attention_dropout=config.attention_dropout,
    )
    model.check()
    return model


def _period(layer_types: list[str], folder: Path) -> int:
    """N of "every n-th layer is global, beginning with the first"."""
    found = [i for i, kind in enumerate(layer_types) if kind == "full_attention"]
    period = found[1] - found[0] if len(found) > 1 else len(layer_types)
    expected = ["full_attention" if i % period == 0 else "sliding_attention" for i in range(len(layer_types))]
    if layer_types != expected:
        raise UserError(f"{folder}/config.json has layer_types that are not periodic from the first layer: not supported")
    return period
