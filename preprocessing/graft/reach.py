"""Whether an entry can come out of any text: its own text must give it, and nothing else.

Texts are formed so that nothing stands around the piece. "▁" is a space, byte-level characters are their bytes, and what a
tokenizer puts before every text (Prepend, Metaspace's and ByteLevel's prefix) or takes away there (Strip) is switched off, so
that a piece from inside a word is read as it is inside a word. Parts of characters have no text: they go to the model as
they are spelled.
Single bytes and special tokens are not asked: bytes are what remains where nothing else fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from preprocessing.graft.words import bare

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from preprocessing.graft.teacher import Teacher

_BATCH = 1 << 16


def inside_words(settings: dict[str, Any]) -> Tokenizer:
    """A tokenizer.json's tokenizer without special tokens, post-processor and what is put before a text."""
    from tokenizers import Tokenizer

    changed = settings | {
        "added_tokens": [],
        "post_processor": None,
        "normalizer": _without_prefix(settings["normalizer"], "normalizers"),
        "pre_tokenizer": _without_prefix(settings["pre_tokenizer"], "pretokenizers"),
    }
    return Tokenizer.from_str(orjson.dumps(changed).decode())


def _without_prefix(part: Any, inner: str) -> Any:
    if part is None:
        return None
    if inner in part:
        steps = [changed for step in part[inner] if (changed := _without_prefix(step, inner)) is not None]
        return {**part, inner: steps} if steps else None
    if part["type"] in ("Prepend", "Strip"):
        return None
    off = {"prepend_scheme": "never", "add_prefix_space": False}
    return {key: off.get(key, value) for key, value in part.items()}


def spelled_by_text(teacher: Teacher, pieces: Iterable[str]) -> set[str]:
    """Of `pieces` those that normalizer and pre-tokenizer leave as they are, in one word: others come from no text."""
    plain = inside_words(teacher.settings)
    normalizer, pre_tokenizer = plain.normalizer, plain.pre_tokenizer
    found = set()
    for piece in pieces:
        if not teacher.is_one_word(piece):
            continue
        text = teacher.text_of(piece)
        if text is not None:
            text = normalizer.normalize_str(text) if normalizer else text
            words = [word for word, _ in pre_tokenizer.pre_tokenize_str(text)] if pre_tokenizer else [text]
            if words != [piece]:
                continue
        found.add(piece)
    return found


def unreachable(teacher: Teacher, settings: dict[str, Any], pieces: Sequence[str]) -> list[str]:
    """Of `pieces`, ordinary entries of the tokenizer.json `settings`, those that their own text does not give.

    `teacher` tells how pieces spell text. Everything is encoded by the tokenizer that will be written.
    """
    plain = inside_words(settings)
    asked = [piece for piece in pieces if piece not in teacher.bytes]
    texts = [(piece, text) for piece in asked if (text := teacher.text_of(piece)) is not None]
    found = _differing(plain, texts)
    spelled = [(piece, piece) for piece in asked if teacher.text_of(piece) is None]
    return found + _differing(bare(plain), spelled)


def _differing(tokenizer: Tokenizer, texts: Sequence[tuple[str, str]]) -> list[str]:
    found = []
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        encodings = tokenizer.encode_batch_fast([text for _, text in part], add_special_tokens=False)
        for (piece, _), encoding in zip(part, encodings, strict=True):
            if encoding.ids != [tokenizer.token_to_id(piece)]:
                found.append(piece)
    return found
