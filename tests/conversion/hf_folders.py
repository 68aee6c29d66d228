"""Hugging Face folders with random weights as transformers itself saves them, and the command line in this process."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from mecellem.cli import main
from megatron_recipes.config import DecoderConfig, EncoderConfig, RopeScaling

ENCODER = EncoderConfig(4, 64, 96, 4, 8192 + 40, 256, local_attention=16, global_attention_every=2, global_rope_theta=80_000.0)


def decoder(**values: Any) -> DecoderConfig:
    """A small Qwen3 whose vocabulary needs padding at every TP, with `values` in place of its own."""
    small = {
        "family": "qwen3",
        "num_layers": 4,
        "hidden_size": 64,
        "ffn_hidden_size": 96,
        "num_attention_heads": 4,
        "num_query_groups": 2,
        "head_dim": 32,
        "vocab_size": 8192 + 40,
        "max_sequence_length": 256,
        "rope_theta": 1_000_000.0,
    }
    return DecoderConfig(**{**small, **values})


SHAPES: dict[str, EncoderConfig | DecoderConfig] = {
    "modernbert": ENCODER,
    "qwen3 tied": decoder(),
    "qwen3 untied": decoder(tie_embeddings=False),
    "llama tied": decoder(family="llama", head_dim=16, norm_epsilon=1e-5, num_query_groups=1),
    "llama untied, llama3": decoder(
        family="llama",
        num_query_groups=4,
        tie_embeddings=False,
        rope_scaling=RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=64),
    ),
    "qwen3 yarn": decoder(
        rope_scaling=RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=64), rope_theta=10_000.0
    ),
}
CAUSAL_IDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": None}
MASKED_IDS = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}


class Bomb:
    """Writes a file when a pickle of it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.file)!r}, 'w').close()",))


def hf_model(shape: EncoderConfig | DecoderConfig, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    """transformers' model of a shape: random weights, norms and biases that are not trivial."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    from conversion.hf_config import to_hf_config

    torch.manual_seed(3)
    encoder = isinstance(shape, EncoderConfig)
    values = to_hf_config(shape, MASKED_IDS if encoder else CAUSAL_IDS, "float32")
    for name, value in config.items():
        setattr(values, name, value)
    auto: Any = AutoModelForMaskedLM if encoder else AutoModelForCausalLM
    model = auto.from_config(values)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.uniform_(0.5, 1.5) if "norm" in name else parameter.normal_(std=0.05)
    return model.to(dtype).eval()


def write_folder(
    folder: Path,
    shape: EncoderConfig | DecoderConfig,
    tokenizer: Path,
    dtype: torch.dtype = torch.float32,
    shard: str = "5GB",
    **config: Any,
) -> Path:
    """Such a model with a tokenizer, a chat template and generation settings, saved by transformers alone."""
    from transformers import AutoTokenizer

    model = hf_model(shape, dtype, **config)
    model.save_pretrained(folder, max_shard_size=shard)
    words = AutoTokenizer.from_pretrained(tokenizer)
    words.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    words.save_pretrained(folder)
    return folder


def command(*arguments: object, code: int = 0, limit_kb: int | None = None) -> str:
    """The real command line in this process, or under a limit in a process of its own; what it printed."""
    if limit_kb is None:
        printed, handler = io.StringIO(), signal.getsignal(signal.SIGTERM)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            found = main([str(argument) for argument in arguments])
        signal.signal(signal.SIGTERM, handler)
        assert found == code, printed.getvalue()
        return printed.getvalue()
    # files larger than this cannot be written: a full disk, file by file
    line = ["bash", "-c", f'ulimit -f {limit_kb}; exec "$@"', "bash", sys.executable, "-m", "mecellem", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def nothing_left(folder: Path) -> bool:
    """Neither the folder nor a temporary one beside it."""
    return not folder.exists() and not list(folder.parent.glob(f".{folder.name}*"))
