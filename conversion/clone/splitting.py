"""How a teacher splits text that may begin in the middle of a word: by its own model, without what it adds at the ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from conversion.clone.vocabulary import SPACE, Spelled, TokenizerFolder, byte_characters, set_apart

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ADDS_A_SPACE = ("Prepend",)  # normalizers that begin every text with a space
NOTHING = -1  # in the place of what the teacher has no entry for
SPLITS_AT_SPACES = ("Metaspace", "WhitespaceSplit", "Whitespace")  # pre-tokenizers; the space is written out before them


class Splitter:
    """Texts to a teacher's ids. No special token, nothing at either end, and a space in front only where there is one.

    A tokenizer as it is would begin every text as a new word: "▁" in SentencePiece, no "##" in WordPiece.
    """

    def __init__(self, teacher: TokenizerFolder) -> None:
        from tokenizers import Tokenizer

        self.teacher = teacher
        normalizer = _without(teacher.settings.get("normalizer"), ADDS_A_SPACE)
        splitting = teacher.settings.get("pre_tokenizer")
        if teacher.family == "sentencepiece":
            splitting = _without(splitting, SPLITS_AT_SPACES)
        parts = _parts(normalizer, splitting)
        self.normalizer, self.pre_tokenizer = parts.normalizer, parts.pre_tokenizer
        self.whole = Tokenizer(teacher.tokenizer.model)  # no added tokens, no template
        if self.pre_tokenizer is not None:
            self.whole.pre_tokenizer = self.pre_tokenizer
        if self.normalizer is not None and teacher.family != "sentencepiece":
            self.whole.normalizer = self.normalizer
        self.model = Tokenizer(teacher.tokenizer.model)
        self.spelling = {byte: chr(code) for code, byte in byte_characters().items()}

    def split(self, texts: Sequence[Spelled]) -> tuple[list[list[int]], set[int]]:
        """The teacher's ids of each text, without its special tokens; empty where it can spell nothing of it.

        Beside them the positions of the texts of which it can spell a part.
        """
        ways = {"byte-level": self._byte_level, "sentencepiece": self._sentencepiece, "wordpiece": self._wordpiece}
        found = ways.get(self.teacher.family, self._plain)(texts)
        no_text = self.teacher.special | {NOTHING}
        partly = set()
        for place, ids in enumerate(found):
            if not no_text.isdisjoint(ids):
                found[place] = [number for number in ids if number not in no_text]
                if found[place]:
                    partly.add(place)
        return found, partly

    def _plain(self, texts: Sequence[Spelled]) -> list[list[int]]:
        return _encode(self.whole, [text.raw.decode(errors="ignore").strip() for text in texts])

    def _byte_level(self, texts: Sequence[Spelled]) -> list[list[int]]:
        """Text as text; bytes that are no whole characters as they are, past everything that reads characters."""
        characters = [_text(item.raw) for item in texts]
        found = _encode(self.whole, [text or "" for text in characters])
        broken = [number for number, text in enumerate(characters) if text is None]
        bytewise = ["".join(self.spelling[byte] for byte in texts[number].raw) for number in broken]
        for number, ids in zip(broken, _encode(self.model, bytewise), strict=True):
            found[number] = ids
        return found

    def _sentencepiece(self, texts: Sequence[Spelled]) -> list[list[int]]:
        """Every space is written out as "▁" behind the normalizer, which may strip or merge those at the ends.

        Bytes that are no whole characters get the teacher's entry for the byte, if it has one.
        """
        characters = [_text(item.raw) for item in texts]
        found = _encode(self.whole, [self._with_spaces(text) if text is not None else "" for text in characters])
        for number, text in enumerate(characters):
            if text is None:
                found[number] = self._around_bytes(texts[number].raw)
        return found

    def _with_spaces(self, text: str) -> str:
        word = text[1:] if text.startswith(" ") else text
        normal = self.normalizer.normalize_str(word) if self.normalizer is not None else word
        if not normal and word:  # white space that the normalizer strips; or characters that it drops
            normal = SPACE if word.isspace() else ""
            return normal
        return (SPACE if text.startswith(" ") else "") + normal.replace(" ", SPACE)

    def _around_bytes(self, raw: bytes) -> list[int]:
        found: list[int] = []
        run = ""
        for character in raw.decode(errors="surrogateescape"):
            if "\udc80" <= character <= "\udcff":
                found += self.whole.encode(self._with_spaces(run)).ids
                found.append(self.teacher.ids.get(f"<0x{ord(character) - 0xDC00:02X}>", NOTHING))
                run = ""
            else:
                run += character
        return found + self.whole.encode(self._with_spaces(run)).ids

    def _wordpiece(self, texts: Sequence[Spelled]) -> list[list[int]]:
        """The rest of a word is looked up with "##" before it, which the model's longest match then finds as it stands."""
        characters = [item.raw.decode(errors="ignore") for item in texts]
        begins = [item.either or text[:1].isspace() for item, text in zip(texts, characters, strict=True)]
        found = _encode(self.whole, [text if begin else "" for text, begin in zip(characters, begins, strict=True)])
        prefix = self.teacher.settings["model"].get("continuing_subword_prefix", "##")
        rest = [number for number, begin in enumerate(begins) if not begin]
        words = [self._words(characters[number], prefix) for number in rest]
        flat = iter(_encode(self.model, [word for some in words for word in some]))
        for number, some in zip(rest, words, strict=True):
            for word in some:
                ids = next(flat)
                if word.startswith(prefix) and not str(self.model.id_to_token(ids[0])).startswith(prefix):
                    ids = [NOTHING]  # it began with the "#" of our own
                found[number] = found[number] + ids
        return found

    def _words(self, text: str, prefix: str) -> list[str]:
        """The teacher's words of a text that goes on a word, the first one with the prefix."""
        normal = self.normalizer.normalize_str(text) if self.normalizer is not None else text
        if self.pre_tokenizer is None:
            return [prefix + normal] if normal else []
        words = [word for word, _ in self.pre_tokenizer.pre_tokenize_str(normal)]
        return [prefix + words[0] if not set_apart(words[0]) else words[0], *words[1:]] if words else []


def _text(raw: bytes) -> str | None:
    """The characters that bytes are, None where one is cut."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [found.ids for found in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _without(part: Any, kinds: tuple[str, ...]) -> Any:
    """A normalizer or pre-tokenizer in JSON without the parts of some kinds, and none that begins a text with a space."""
    if part is None or part.get("type") in kinds:
        return None
    if part["type"] == "Sequence":
        (name,) = [name for name in part if name != "type"]
        kept = [item for item in (_without(item, kinds) for item in part[name]) if item is not None]
        return {"type": "Sequence", name: kept} if kept else None
    return {**part, "add_prefix_space": False} if "add_prefix_space" in part else part


def _parts(normalizer: Any, pre_tokenizer: Any) -> Tokenizer:
    """A tokenizer that has these two and an empty model: the library reads parts only as parts of a whole."""
    from tokenizers import Tokenizer

    empty = {"type": "BPE", "vocab": {}, "merges": []}
    rest = dict.fromkeys(("truncation", "padding", "post_processor", "decoder"))
    whole = {"version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": empty}
    return Tokenizer.from_str(orjson.dumps({**rest, **whole}).decode())
