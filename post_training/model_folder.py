"""Hugging Face model folders: checked before any work starts, hashed for the caches, loaded without noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.tokenizer_files import read_json, read_vocabulary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PoolingName = Literal["mean", "cls", "lasttoken"]  # how token vectors become one

# What makes two model folders the same model: the weights, their shape, and the text-to-ids mapping.
IDENTITY = ("config.json", "model.safetensors", "tokenizer.json")


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that cannot be evaluated, without loading weights.

    Raises `UserError` when the folder, its config, weights or tokenizer is missing or unreadable, or when the
    tokenizer has ids that the model's embedding lacks.
    """
    export = "make it with `mecellem convert export CHECKPOINT FOLDER`"
    if not folder.is_dir():
        raise UserError(f"{folder} is not a model folder: {export}")
    for name in IDENTITY:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing, so this is not a whole Hugging Face model folder: {export}")
    rows = read_json(folder / "config.json").get("vocab_size")
    if not isinstance(rows, int):
        raise UserError(f"{folder / 'config.json'} has no vocab_size: {export}")
    entries = read_vocabulary(folder).size
    if entries > rows:
        raise UserError(
            f"{folder / 'tokenizer.json'} has token ids up to {entries - 1:,} but the model's embedding has {rows:,} rows: "
            "the tokenizer belongs to another model; export with the tokenizer that the model was trained with"
        )


def model_sha256(folder: Path) -> str:
    """One SHA-256 over weights, config and tokenizer of a checked folder."""
    digest = hashlib.sha256()
    for name in IDENTITY:
        digest.update(f"{name}:{sha256_of(folder / name)}\n".encode())
    return digest.hexdigest()


def pick_device(device: str) -> str:
    """`auto` becomes `cuda` where there is one, else `cpu`; other names pass. Raises `UserError` for a missing GPU."""
    if device != "auto" and not device.startswith("cuda"):
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.cuda.is_available():
        raise UserError(f"--device {device}: this machine has no CUDA device; use --device cpu or auto")
    return device


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and advice inside the block; errors still raise."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, through AutoTokenizer, from disk only."""
    from transformers import AutoTokenizer

    with quiet_transformers():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer


def load_masked_lm(folder: Path, device: str) -> torch.nn.Module:
    """The folder's masked language model in fp32, in evaluation mode, on `device`."""
    import torch
    from transformers import AutoModelForMaskedLM

    with quiet_transformers():
        model = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    check_whole(model)
    return model.to(device).eval()


def check_whole(model: PreTrainedModel) -> None:
    """Refuse a model that was loaded from a folder which lacks some of its weights.

    transformers would only warn, and go on with random numbers. A pooler may be missing: what is made here of tokens' vectors
    needs none. Reads the names of the weights, not the weights. Raises `UserError`.
    """
    folder = model.config.name_or_path
    with quiet_transformers():
        kind: Any = type(model)
        _, found = kind.from_pretrained(
            folder, config=model.config, local_files_only=True, device_map="meta", output_loading_info=True
        )
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name.split("."))
    if missing:
        others = f" and {len(missing) - 1:,} other weights" if len(missing) > 1 else ""
        raise UserError(
            f"{folder} lacks {missing[0]}{others} of {type(model).__name__}, which would be random: copy the model again, "
            "or give one that was saved with them"
        )


def count_parameters(folder: Path) -> int:
    """Number of weights stored in the folder's `model.safetensors` (tied heads are stored once)."""
    import math

    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
