"""The files of a Hugging Face folder that travel with weights, and their copy beside every model."""

from __future__ import annotations

import shutil
from pathlib import Path

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.json", "merges.txt", "tokenizer.model"),  # older forms of the same, which some libraries read
    "generation_config.json",
)
MODEL_CONFIG = "model_config.json"  # in a checkpoint's tokenizer folder: the config.json that its weights were imported with


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy those files of a folder that are there, byte for byte; `target` is made if need be."""
    target.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
