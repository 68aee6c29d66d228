"""Any tokenizer by its path: a folder, a tokenizer.json or tiktoken's ranks; and what each entry of it stands for."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mecellem.errors import UserError
from mecellem.files import sha256_of
from preprocessing.tokenizers.patterns import TIKTOKEN_PATTERNS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_KINDS = "a folder with a tokenizer.json, a .json file of Hugging Face tokenizers, or a .tiktoken file"
_SPACE = "▁"  # SentencePiece's sign for a space


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a vocabulary. `text` is without its leading space, None where its bytes are not whole characters.

    `starts_word`: it had a leading space, or, in WordPiece, has no "##".
    """

    id: int
    piece: str
    text: str | None
    starts_word: bool
    added: bool
    single_byte: bool  # one byte of a character that has several


@dataclass(frozen=True, slots=True)
class NamedTokenizer:
    """A tokenizer ready to measure: truncation, padding and special meaning of texts like "[SEP]" are off.

    `notes` are sentences about what had to be changed for that. `settings` is its tokenizer.json.
    """

    name: str
    path: Path
    sha256: str
    tokenizer: Tokenizer
    settings: dict[str, Any]
    entries: dict[int, Entry]  # by id, in the order of ids
    vocabulary_kind: str  # byte-level, sentencepiece, wordpiece or plain: how a piece spells text
    notes: tuple[str, ...] = ()

    def shown(self, number: int) -> str:
        """An entry for people: its text with "_" for a leading space, or its bytes where it is part of a character."""
        entry = self.entries[number]
        if entry.text is None:
            return entry.piece if entry.piece.startswith("<0x") else _bytes_of(entry.piece).hex(" ")
        return f"_{entry.text}" if entry.starts_word and self.vocabulary_kind != "wordpiece" else entry.text

    @property
    def unknown_id(self) -> int | None:
        """The id of pieces that the vocabulary cannot spell, if it has one."""
        model = self.settings["model"]
        if model.get("unk_id") is not None:
            return int(model["unk_id"])
        unknown = model.get("unk_token")
        return None if unknown is None else self.tokenizer.token_to_id(unknown)


def load_tokenizers(arguments: Sequence[str]) -> list[NamedTokenizer]:
    """Load each of `arguments`, PATH or NAME=PATH; a name is by default that of the folder or of the .tiktoken file.

    Raises `UserError` for a path that is not there, a file of no known kind, a broken one, and for a name given twice.
    """
    named = [_name_and_path(argument) for argument in arguments]
    for number, (name, path) in enumerate(named):
        if other := next((earlier for before, earlier in named[:number] if before == name), None):
            raise UserError(f"{other} and {path} are both called {name!r}: tell them apart with NAME=PATH")
    return [load_named(name, path) for name, path in named]


def _name_and_path(argument: str) -> tuple[str, Path]:
    name, separator, rest = argument.partition("=")
    path = Path(rest if separator and name and "/" not in name else argument)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} is not a file: a tokenizer is {_KINDS}")
    if path.suffix not in (".json", ".tiktoken"):
        raise UserError(f"{path}: a tokenizer is {_KINDS}; save other kinds (tokenizer.model, vocab.txt) as tokenizer.json")
    if separator and name and "/" not in name:
        return name, path
    return (path.absolute().parent.name if path.name == "tokenizer.json" else path.stem), path


def load_named(name: str, path: Path) -> NamedTokenizer:
    """Load one tokenizer file. Raises `UserError` for a broken one."""
    from tokenizers import Tokenizer

    if path.suffix == ".tiktoken":
        tokenizer = _from_tiktoken(path)
    else:
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every kind of broken file
            raise UserError(f"{path} is broken or of another kind ({error}): a tokenizer is {_KINDS}") from None
    notes = []
    if tokenizer.truncation:
        notes.append(f"{path} cuts every text at {tokenizer.truncation['max_length']} tokens; that was switched off")
        tokenizer.no_truncation()
    if tokenizer.padding:
        notes.append(f"{path} pads every text; that was switched off")
        tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text
    settings = orjson.loads(tokenizer.to_str())
    kind = _vocabulary_kind(settings)
    return NamedTokenizer(name, path, sha256_of(path), tokenizer, settings, _entries(tokenizer, kind), kind, tuple(notes))


def _from_tiktoken(path: Path) -> Tokenizer:
    """Byte-level BPE with the same ids: each entry is made by the merges of all its halves, in the order of ranks."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    found = TIKTOKEN_PATTERNS.get(path.name)
    if found is None:
        known = ", ".join(TIKTOKEN_PATTERNS)
        raise UserError(
            f"{path}: ranks do not tell how text is split, which is known for the files {known} alone: "
            "use the tokenizer.json of the model"
        )
    ranks = _read_ranks(path)
    spelled = {piece: _spell(piece) for piece in ranks}
    merges: list[tuple[str, str]] = []
    for piece in sorted(ranks, key=ranks.__getitem__):
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known_halves = [pair for pair in halves if pair[0] in ranks and pair[1] in ranks]
        known_halves.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += ((spelled[left], spelled[right]) for left, right in known_halves)
    pattern, nfc = found
    tokenizer = Tokenizer(models.BPE(vocab={spelled[piece]: rank for piece, rank in ranks.items()}, merges=merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            piece, rank = line.split()
            ranks[base64.b64decode(piece, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise UserError(f"{path}, line {number}: base64 and a rank are needed: the file is broken") from None
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise UserError(f"{path}: {len(missing)} of the 256 bytes have no rank: the file is cut or of another kind")
    return ranks


def _byte_characters() -> list[str]:
    """The character by which byte-level BPE writes each byte: printable ones themselves, others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_CHARACTERS = _byte_characters()
_BYTES = {character: byte for byte, character in enumerate(_CHARACTERS)}


def _spell(piece: bytes) -> str:
    return "".join(_CHARACTERS[byte] for byte in piece)


def _bytes_of(piece: str) -> bytes:
    return b"".join(bytes([_BYTES[character]]) if character in _BYTES else character.encode() for character in piece)


def _vocabulary_kind(settings: dict[str, Any]) -> str:
    parts = orjson.dumps([settings.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]).decode()
    if '"ByteLevel"' in parts:
        return "byte-level"
    if _SPACE in parts:
        return "sentencepiece"
    return "wordpiece" if settings["model"].get("type") == "WordPiece" else "plain"


def _entries(tokenizer: Tokenizer, kind: str) -> dict[int, Entry]:
    added = set(tokenizer.get_added_tokens_decoder())
    vocabulary = sorted((number, piece) for piece, number in tokenizer.get_vocab(with_added_tokens=True).items())
    return {number: _entry(number, piece, number in added, kind) for number, piece in vocabulary}


def _entry(number: int, piece: str, added: bool, kind: str) -> Entry:
    if added:
        return Entry(number, piece, piece, False, True, False)
    if kind == "byte-level":
        raw = _bytes_of(piece)
        try:
            text: str | None = raw.decode()
        except UnicodeDecodeError:
            text = None
        single = len(raw) == 1 and raw[0] >= 0x80
        return Entry(number, piece, text and text.removeprefix(" "), raw[:1] == b" ", False, single)
    if kind == "sentencepiece":
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return Entry(number, piece, None, False, False, True)
        text = piece.replace(_SPACE, " ")
        return Entry(number, piece, text.removeprefix(" "), text.startswith(" "), False, False)
    if kind == "wordpiece":
        return Entry(number, piece, piece.removeprefix("##"), not piece.startswith("##"), False, False)
    return Entry(number, piece, piece, False, False, False)
