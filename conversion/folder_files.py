"""What travels with the weights of a model: tokenizer, chat template, generation settings, ids of special tokens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mecellem.errors import UserError
from mecellem.tokenizer_files import MODEL_CONFIG, copy_tokenizer, read_vocabulary

GENERATION = "generation_config.json"


def keep_companions(source: Path, target: Path) -> None:
    """Copy what travels with a Hugging Face folder's weights into a checkpoint's tokenizer folder."""
    copy_tokenizer(source, target)
    shutil.copyfile(source / "config.json", target / MODEL_CONFIG)


def return_companions(source: Path, target: Path, config: Any) -> None:
    """Copy it into an exported folder; generation settings that nobody gave follow from the `config`, as in transformers."""
    from transformers import GenerationConfig

    copy_tokenizer(source, target)
    if config.model_type != "modernbert" and not (target / GENERATION).exists():
        GenerationConfig.from_model_config(config).save_pretrained(str(target))


def check_tokenizer(folder: Path, vocab_size: int, sha256: str | None = None) -> Path:
    """Return `folder` if its tokenizer fits a model (and is the one with that SHA-256), else raise a `UserError`."""
    vocabulary = read_vocabulary(folder)
    if vocabulary.size > vocab_size:
        raise UserError(
            f"the tokenizer in {folder} has {vocabulary.size:,} entries, the model's embedding only {vocab_size:,}: give the "
            "tokenizer that the model was trained with"
        )
    if sha256 is not None and vocabulary.sha256 != sha256:
        raise UserError(
            f"{folder / 'tokenizer.json'} is not the tokenizer that the checkpoint was trained with (SHA-256 "
            f"{vocabulary.sha256[:12]}…, expected {sha256[:12]}…): its ids would mean other words; give the right one "
            "with --tokenizer"
        )
    return folder
