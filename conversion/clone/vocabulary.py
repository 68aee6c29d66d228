"""A tokenizer folder as cloning sees it: what text each entry stands for, and which entry has which special role."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.tokenizer_files import read_json, rowless

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Family = Literal["byte-level", "sentencepiece", "wordpiece", "plain"]
SPACE = "▁"  # SentencePiece's sign for a space
ROLES = ("cls", "bos", "sep", "eos", "mask", "unk", "pad")  # padding last: where one token has two roles, the other one matters
SAME_USE = {"cls": "bos", "bos": "cls", "sep": "eos", "eos": "sep"}  # encoders and decoders begin and end texts by other names
PADDING_ROWS, PADDING_SHARE = 1024, 0.05  # the most rows without an entry that an embedding may have: the larger of both
GRAFT = "graft.json"  # what `mecellem tokenizer graft` says about a tokenizer


@dataclass(frozen=True, slots=True)
class TokenizerFolder:
    """A tokenizer without truncation or padding. `settings` is its tokenizer.json without the vocabulary.

    `ids`: every entry's id by its string, added ones included. `special`: ids of special tokens. `added`: of all that are
    found in a text as they stand. `roles`: ids by role. `sha256`: of tokenizer.json.
    """

    folder: Path
    tokenizer: Tokenizer
    settings: dict[str, Any]
    family: Family
    ids: dict[str, int]
    special: frozenset[int]
    added: frozenset[int]
    roles: dict[str, int]
    sha256: str

    @property
    def size(self) -> int:
        """The highest id + 1: the rows that a model needs."""
        return max(self.ids.values()) + 1

    def role(self, name: str) -> int | None:
        """The id of a role, or of the one that the other kind of model has in its place."""
        return self.roles.get(name, self.roles.get(SAME_USE.get(name, name)))

    def around_a_text(self) -> list[str]:
        """The special tokens that it puts around a text, by role where they have one, else by string."""
        names = {number: role for role, number in reversed(self.roles.items())}
        same = {"bos": "cls", "eos": "sep"}
        found = self.tokenizer.encode("").ids
        strings = [names.get(number) or str(self.tokenizer.id_to_token(number)) for number in found]
        return [same.get(name, name) for name in strings]


def read_tokenizer(folder: Path) -> TokenizerFolder:
    """Read a folder with a tokenizer.json.

    Raises `UserError` for one that is missing, that the tokenizers library cannot read, that has no vocabulary, or whose
    entries mark the ends of words.
    """
    folder = Path(folder)
    path = folder / "tokenizer.json"
    tokenizer = _load(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = tokenizer.get_vocab(with_added_tokens=True)
    if not ids:
        raise UserError(f"{path} has an empty vocabulary: train the tokenizer again")
    settings = orjson.loads(path.read_bytes())
    roles = roles_of(folder, settings, ids, _unknown(settings["model"]))
    settings["model"] = {name: value for name, value in settings["model"].items() if name not in ("vocab", "merges")}
    if ending := settings["model"].get("end_of_word_suffix"):
        raise UserError(
            f"{path} marks the ends of words ({ending}), as early BPE did: cloning reads byte-level, SentencePiece and "
            "WordPiece vocabularies; give one of these"
        )
    added = tokenizer.get_added_tokens_decoder()
    special = {number for number, token in added.items() if token.special} | set(roles.values())
    family = _family(settings)
    return TokenizerFolder(
        folder, tokenizer, settings, family, ids, frozenset(special), frozenset(added), roles, sha256_of(path)
    )


def _load(path: Path) -> Tokenizer:
    """The tokenizer itself; `mecellem.tokenizer_files` gives its entries alone, and reading a large one twice takes seconds."""
    from tokenizers import Tokenizer

    if not path.is_file():
        raise UserError(
            f"{path} is missing: {path.parent} is not a Hugging Face tokenizer folder, as save_pretrained writes it"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a tokenizer that the tokenizers library reads ({cause}): save it again") from None


def _unknown(model: dict[str, Any]) -> str | None:
    """The string of a model's entry for what it cannot spell."""
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token")


def _family(settings: dict[str, Any]) -> Family:
    """How the entries spell text, from what happens to a text before and after the model sees it."""
    parts = orjson.dumps([settings.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]).decode()
    if '"ByteLevel"' in parts:
        return "byte-level"
    if SPACE in parts:
        return "sentencepiece"
    return "wordpiece" if settings["model"].get("type") == "WordPiece" else "plain"


def roles_of(folder: Path, settings: dict[str, Any], ids: dict[str, int], unknown: str | None) -> dict[str, int]:
    """Ids of special tokens by role: from graft.json, the tokenizer's own files, then the config.json of its model."""
    from preprocessing.graft.roles import find_roles

    def read(name: str) -> dict[str, Any]:
        return read_json(folder / name, "tokenizer") if (folder / name).exists() else {}

    named = find_roles(settings, read("tokenizer_config.json"), read("special_tokens_map.json")).named
    named = ({} if unknown is None else {"unk": unknown}) | named | (read(GRAFT).get("roles") or {})
    found = {role: ids[named[role]] for role in ROLES if named.get(role) in ids}
    config = read("config.json")
    for role in ROLES:
        number = config.get(f"{role}_token_id")
        if isinstance(number, int) and 0 <= number <= max(ids.values()):
            found.setdefault(role, number)
    return {role: found[role] for role in ROLES if role in found}


@cache
def byte_characters() -> dict[int, int]:
    """For `str.translate`: the code point by which byte-level BPE writes a byte -> that byte."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {ord(character): byte for byte, character in bytes_to_unicode().items()}


@dataclass(frozen=True, slots=True)
class Spelled:
    """What an entry stands for: bytes of text with the space before them, where there is one.

    `either`: the text as well after a space as without one (WordPiece's punctuation, which it sets apart wherever it stands).
    `fallback`: one byte that SentencePiece writes as <0x41>, beside the entry for the same character.
    """

    id: int
    raw: bytes
    either: bool = False
    fallback: bool = False


def spelled(piece: str, number: int, vocabulary: TokenizerFolder) -> Spelled:
    """What an entry that is no special token stands for, in the spelling of its tokenizer's family."""
    if number in vocabulary.added:
        return Spelled(number, piece.encode())
    if vocabulary.family == "byte-level":
        text = piece.translate(byte_characters())
        try:
            return Spelled(number, text.encode("latin-1"))
        except UnicodeEncodeError:  # a character that stands for no byte: an entry that no text gives
            return Spelled(number, piece.encode())
    if vocabulary.family == "sentencepiece":
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return Spelled(number, bytes.fromhex(piece[3:5]), fallback=True)
        return Spelled(number, piece.replace(SPACE, " ").encode())
    if vocabulary.family == "wordpiece":
        prefix = vocabulary.settings["model"].get("continuing_subword_prefix", "##")
        if piece.startswith(prefix) and piece != prefix:
            return Spelled(number, piece.removeprefix(prefix).encode())
        if set_apart(piece):
            return Spelled(number, piece.encode(), either=True)
        return Spelled(number, b" " + piece.encode())
    return Spelled(number, piece.encode())


def set_apart(piece: str) -> bool:
    """Whether BERT's pre-tokenizer makes a word of this character wherever it stands: punctuation, and Chinese characters."""
    if len(piece) != 1:
        return False
    code = ord(piece)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(piece).startswith("P") or unicodedata.name(piece, "").startswith("CJK ")


def contradicted_roles(vocabulary: TokenizerFolder) -> list[str]:
    """Roles of special tokens for which the model's config.json names an entry that the tokenizer gives to another role.

    Ids of no special token are common defaults of configs (BERT's padding 0) and tell nothing.
    """
    path = vocabulary.folder / "config.json"
    config = read_json(path) if path.exists() else {}
    found = []
    for role, number in vocabulary.roles.items():
        named = config.get(f"{role}_token_id")
        if isinstance(named, int) and named != number and named in vocabulary.roles.values():
            found.append(f"{role} ({named}, {number})")
    return found


def with_rows(vocabulary: TokenizerFolder, rows: int) -> TokenizerFolder:
    """Without special tokens that lie behind a model's rows and have no role: nothing in the model stands for them."""
    gone = rowless(vocabulary.ids, vocabulary.added & vocabulary.special, rows) - set(vocabulary.roles.values())
    if not gone:
        return vocabulary
    ids = {piece: number for piece, number in vocabulary.ids.items() if number not in gone}
    return replace(vocabulary, ids=ids, special=vocabulary.special - gone, added=vocabulary.added - gone)


def refuse_rows(tokenizer: Path, size: int, rows: int) -> None:
    """Raise `UserError` when a tokenizer of `size` ids is not that of a model with `rows` rows in its embedding.

    Models have rows that no entry uses, up to the next multiple of their layout: 905 of 51,200 are the most of a model that
    is much used (Phi-2). Far more, and the tokenizer is that of a smaller vocabulary.
    """
    remedy = "the tokenizer belongs to another model; give the teacher with the tokenizer it was trained with"
    if size > rows:
        raise UserError(f"{tokenizer} has token ids up to {size - 1:,} but the model's embedding has {rows:,} rows: {remedy}")
    if rows - size > max(PADDING_ROWS, rows * PADDING_SHARE):
        raise UserError(f"{tokenizer} has {size:,} token ids and the model's embedding {rows:,} rows: {remedy}")
