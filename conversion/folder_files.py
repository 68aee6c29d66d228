"""What travels with the weights of a model: tokenizer, chat template, generation settings, ids of special tokens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.tokenizer_files import MODEL_CONFIG, copy_tokenizer

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
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: the folder needs its tokenizer, as transformers' save_pretrained writes it")
    from tokenizers import Tokenizer

    try:
        entries = max(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True).values()) + 1
    except Exception as error:  # the tokenizers library raises bare `Exception`s
        raise UserError(f"{path} cannot be loaded ({' '.join(str(error).split())[:200]})") from None
    if entries > vocab_size:
        raise UserError(
            f"the tokenizer in {folder} has {entries:,} entries, the model's embedding only {vocab_size:,}: give the tokenizer "
            "that the model was trained with"
        )
    found = sha256_of(path)
    if sha256 is not None and found != sha256:
        raise UserError(
            f"{path} is not the tokenizer that the checkpoint was trained with (SHA-256 {found[:12]}…, expected "
            f"{sha256[:12]}…): its ids would mean other words; give the right one with --tokenizer"
        )
    return folder
