"""The Hugging Face folder to convert: a local one, or a model of the Hugging Face Hub by its id."""

from __future__ import annotations

import re
from pathlib import Path

from mecellem.errors import UserError
from mecellem.files import disk_full_cause

# never pickles, and none of the other formats that a repository may hold beside safetensors
WANTED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer.model"]
# of a model with its sentence-transformers modules
MODULE_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*/config.json", "*/*.safetensors"]
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def find_folder(source: str) -> Path:
    """The folder that `source` names: a path, or an id like `Qwen/Qwen3-1.7B`, which is downloaded (and kept in its cache).

    Raises `UserError` for what is neither, and for what cannot be downloaded.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or HUB_ID.fullmatch(source) is None:
        raise UserError(f"{source} is neither a folder nor the id of a model on the Hugging Face Hub (like Qwen/Qwen3-1.7B)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=WANTED, ignore_patterns=["*/*"]))
    except RepositoryNotFoundError:  # also for private ones
        raise UserError(
            f"{source} is no folder here and no public model on the Hugging Face Hub: check the spelling (a gated or private "
            "model needs `hf auth login` first)"
        ) from None
    except Exception as error:  # those of whatever client the library uses, too
        if disk_full_cause(error) is not None:
            raise
        raise UserError(
            f"{source} is no folder here and could not be downloaded from the Hugging Face Hub ({type(error).__name__}): on a "
            f"machine without internet, download it elsewhere (`hf download {source} --local-dir FOLDER`) and give the folder"
        ) from None


def model_from_hub(source: str) -> Path:
    """The downloaded folder of a model with its modules, by its id. Raises `UserError`."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=MODULE_FILES, ignore_patterns=["onnx/*", "openvino/*"]))
    except Exception as error:  # those of whatever client the library uses, too
        if disk_full_cause(error) is not None:
            raise
        raise UserError(
            f"{source} is no folder here and could not be had from the Hugging Face Hub ({type(error).__name__}): check the "
            f"spelling; on a machine without internet, download it elsewhere (`hf download {source} --local-dir FOLDER`)"
        ) from None
