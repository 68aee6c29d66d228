"""A teacher's tokenizer taken apart: its model, how its entries spell text, and the roles of its special tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.module_folders import MODULES, transformer_folder
from preprocessing.graft.roles import Roles, find_roles

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "▁"  # SentencePiece's sign for a space
CHUNK = re.compile(f"{SPACE}+[^{SPACE}]*|[^{SPACE}]+")  # such spaces and what follows up to the next
BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # byte fallback's entries
_REPLACEMENT = "\ufffd"  # what bytes that are no whole character decode to
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_NEEDED = "name a folder with a tokenizer.json, such a file, or a model's name on the Hugging Face hub"


@dataclass(frozen=True)
class Teacher:
    """A tokenizer that can be grafted.

    `settings` is its tokenizer.json without truncation and padding, `config` its tokenizer_config.json (empty where it has
    none). `pieces` has every ordinary entry of the model by its id: added tokens that stay special and gaps are left out.
    """

    name: str
    path: Path
    sha256: str
    tokenizer: Tokenizer
    settings: dict[str, Any]
    config: dict[str, Any]
    unigram: bool
    byte_level: bool
    roles: Roles
    added: tuple[dict[str, Any], ...]  # the added tokens that stay, in the order of their ids
    dropped_added: int
    pieces: dict[int, str]
    extra_files: tuple[Path, ...] = ()

    @cached_property
    def ids(self) -> dict[str, int]:
        """Ordinary pieces -> the teacher's ids."""
        return {piece: number for number, piece in self.pieces.items()}

    @cached_property
    def scores(self) -> dict[str, float]:
        """Of a Unigram model: pieces -> natural logarithms of probabilities."""
        vocab = self.settings["model"]["vocab"]
        return {piece: float(vocab[number][1]) for number, piece in self.pieces.items()}

    @cached_property
    def in_model(self) -> frozenset[str]:
        """Everything in the model's own vocabulary, special tokens included."""
        vocab = self.settings["model"]["vocab"]
        return frozenset(entry[0] for entry in vocab) if self.unigram else frozenset(vocab)

    @cached_property
    def bytes(self) -> frozenset[str]:
        """The entries that spell single bytes, which stay whatever happens."""
        if self.byte_level:
            from tokenizers.pre_tokenizers import ByteLevel

            return frozenset(ByteLevel.alphabet()) & self.ids.keys()
        if self.settings["model"].get("byte_fallback"):
            return frozenset(piece for piece in self.pieces.values() if BYTE.fullmatch(piece))
        return frozenset()

    @cached_property
    def _decoder(self) -> Any:
        from tokenizers.decoders import ByteLevel

        return ByteLevel()

    def text_of(self, piece: str) -> str | None:
        """The text that a piece spells, its leading space included; None for parts of characters and single bytes."""
        if not self.byte_level:
            return None if BYTE.fullmatch(piece) and piece in self.bytes else piece.replace(SPACE, " ")
        text = str(self._decoder.decode([piece]))
        return None if _REPLACEMENT in text else text

    def is_one_word(self, piece: str) -> bool:
        """Whether no boundary of words runs through a piece, as far as its spelling shows."""
        return self.byte_level or CHUNK.fullmatch(piece) is not None


def load_teacher(teacher: str, keep_added: bool = False) -> Teacher:
    """Read a teacher's tokenizer from a folder, a tokenizer.json, or by its name from the Hugging Face hub.

    `keep_added`: keep added tokens that have no role and stand in no template too. Raises `UserError` for what is missing,
    broken, or of a model that cannot be grafted (WordPiece, WordLevel).
    """
    from tokenizers import Tokenizer

    path = _find(teacher)
    try:
        settings = orjson.loads(path.read_bytes())
        tokenizer = Tokenizer.from_str(orjson.dumps(settings | {"truncation": None, "padding": None}).decode())
        settings = orjson.loads(tokenizer.to_str())
    except Exception as error:  # the library raises bare Exception for every kind of broken file
        raise UserError(f"--teacher: {path} is broken or of another kind ({error}): {_NEEDED}") from None
    _check_model(path, settings)
    folder = path.parent
    config = _json(folder / "tokenizer_config.json")
    roles = find_roles(settings, config, _json(folder / "special_tokens_map.json"))
    extra = tuple(folder / name for name in _FILES[3:] if (folder / name).is_file())
    mentioned = " ".join([*map(_read, extra), str(config.get("chat_template") or "")])
    added = [token for token in settings["added_tokens"] if keep_added or _stays(token, roles, mentioned)]
    unigram = settings["model"]["type"] == "Unigram"
    vocab = settings["model"]["vocab"]
    numbered = enumerate(entry[0] for entry in vocab) if unigram else ((number, piece) for piece, number in vocab.items())
    made = None if unigram else _made(settings)
    byte_level = '"ByteLevel"' in orjson.dumps([settings["pre_tokenizer"], settings["decoder"]]).decode()
    all_added = {token["content"] for token in settings["added_tokens"]}
    no_piece = {token["content"] for token in added} | (all_added if made is None else all_added - made)
    no_piece |= {settings["model"].get("unk_token")}
    pieces = {number: piece for number, piece in sorted(numbered) if piece not in no_piece}
    found = Teacher(
        name=path.absolute().parent.name if path.name == "tokenizer.json" else path.stem,
        path=path,
        sha256=sha256_of(path),
        tokenizer=tokenizer,
        settings=settings,
        config=config,
        unigram=unigram,
        byte_level=byte_level,
        roles=roles,
        added=tuple(added),
        dropped_added=len(settings["added_tokens"]) - len(added),
        pieces=pieces,
        extra_files=extra,
    )
    _check_bytes(found)
    return found


def _find(teacher: str) -> Path:
    path = Path(teacher)
    if path.is_dir():
        path = transformer_folder(path) / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"--teacher: {path} is missing: {_NEEDED}")
        return path
    if path.is_file():
        return path
    if path.is_absolute() or teacher.startswith((".", "~")) or teacher.count("/") > 1 or path.suffix == ".json":
        raise UserError(f"--teacher: {teacher} is not there: {_NEEDED}")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(teacher, allow_patterns=[*_FILES, *(f"*/{name}" for name in _FILES), MODULES]))
    except Exception as error:  # offline, unknown, gated: as many classes as reasons
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--teacher: {teacher} is no folder, and the hub does not give it ({reason}): {_NEEDED}") from None
    return transformer_folder(folder) / "tokenizer.json"


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise UserError(f"--teacher: {path} is broken ({error}): copy or download it again") from None
    if not isinstance(content, dict):
        raise UserError(f"--teacher: {path} is not a JSON object: copy or download it again")
    return content


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _check_model(path: Path, settings: Mapping[str, Any]) -> None:
    model = settings["model"]
    kind = model.get("type")
    if kind not in ("Unigram", "BPE"):
        raise UserError(
            f"--teacher: {path} is a {kind} model, and only Unigram and BPE can be grafted: take another teacher, or train a "
            "vocabulary of its own with `mecellem tokenizer train`"
        )
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UserError(
            f"--teacher: {path} marks pieces inside or at the end of words ({model.get('continuing_subword_prefix')!r}, "
            f"{model.get('end_of_word_suffix')!r}), which cannot be grafted: take a byte-level, byte-fallback or Unigram one"
        )
    if kind == "Unigram" and model.get("unk_id") is None and not model.get("byte_fallback"):
        raise UserError(f"--teacher: {path} has no unknown entry (unk_id): the file is damaged, take the original")


def _made(settings: Mapping[str, Any]) -> set[str]:
    return {left + right for left, right in settings["model"]["merges"]}


def _stays(token: Mapping[str, Any], roles: Roles, mentioned: str) -> bool:
    return token["content"] in roles.needed or token["content"] in mentioned


def _check_bytes(teacher: Teacher) -> None:
    """Byte fallback without all bytes would lose text. (Byte-level vocabularies may lack bytes that UTF-8 never has.)"""
    if teacher.settings["model"].get("byte_fallback") and len(teacher.bytes) != 256:
        raise UserError(
            f"--teacher: {teacher.path} has {len(teacher.bytes)} of the 256 entries of byte fallback: the file is damaged, "
            "take the original"
        )
