"""The files of a Hugging Face folder beside its weights: read, and copied beside every model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mecellem.errors import UserError
from mecellem.files import sha256_of

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


def read_json(path: Path, kind: str = "model") -> dict[str, Any]:
    """The JSON object in a file of a Hugging Face folder. Raises `UserError` for a file that is missing or holds anything else.

    `kind`: of folder, for the sentence (`model` or `tokenizer`).
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is not a Hugging Face {kind} folder") from None
    except ValueError as error:  # of the encoding, too
        raise UserError(f"{path} is not JSON ({error}): save the {kind} again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}, not a JSON object: save the {kind} again")
    return values


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a `tokenizer.json` can produce: every entry's id by its text, added tokens included."""

    ids: dict[str, int]
    special: frozenset[int]  # ids of the added tokens that the file calls special
    sha256: str  # of the file

    @property
    def size(self) -> int:
        """The highest id + 1. A model's embedding may have more rows (Qwen3: 151,936 for 151,669 entries), never fewer."""
        return max(self.ids.values()) + 1

    def size_for(self, rows: int) -> int:
        """The same without special tokens that a model of so many rows has none for (`rowless`)."""
        behind = rowless(self.ids, self.special, rows)
        return max(number for number in self.ids.values() if number not in behind) + 1


def rowless(ids: Mapping[str, int], special: Set[int], rows: int) -> frozenset[int]:
    """The ids of special tokens behind a model's rows, where nothing but such tokens lies there.

    Gemma 3's tokenizer has one for images (262,144), and its models of text alone (EmbeddingGemma, too) have 262,144 rows.
    """
    behind = {number for number in ids.values() if number >= rows}
    return frozenset(behind) if behind <= special else frozenset()


def read_vocabulary(folder: Path) -> Vocabulary:
    """The entries of any Hugging Face fast tokenizer, read once for all who ask until the file changes.

    Raises `UserError` for a folder without `tokenizer.json`, and for one that the tokenizers library cannot read.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: {folder} is not a Hugging Face tokenizer folder, as save_pretrained writes it")
    stat = path.stat()
    return _vocabulary(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _vocabulary(path: Path, modified: int, size: int) -> Vocabulary:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a tokenizer that the tokenizers library reads ({cause}): save it again") from None
    ids = tokenizer.get_vocab(with_added_tokens=True)
    if not ids:
        raise UserError(f"{path} has an empty vocabulary: train the tokenizer again")
    special = frozenset(number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special)
    return Vocabulary(ids, special, sha256_of(path))
