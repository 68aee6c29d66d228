"""Make text clean without changing what it says: Unicode form, control characters, spaces, tags, language."""

from __future__ import annotations

import html
import re
import unicodedata

from preprocessing.turkish import lower

# Invisible characters that carry no text: soft hyphen, zero-width space/joiners, direction marks, byte-order mark.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LINE_BREAK = re.compile("\r\n|[\r\u2028\u2029]")
_TAG = re.compile(r"<[^<>]+>")
_WORD = re.compile(r"\w+")

_TURKISH_WORDS = frozenset(
    _WORD.findall(
        """ve bir bu için ile olarak da de olan gibi daha veya çok her o ne kadar sonra
    ise değil göre tarafından üzerinde içinde olduğu olur eder mi mı ki ama şu var yok en ya"""
    )
)
_ENGLISH_WORDS = frozenset(
    _WORD.findall(
        """the of and to is in that for are you be this with
    or by from as on an if can not it which will when"""
    )
)
_TURKISH_LETTERS = frozenset("ğışĞİŞçöüÇÖÜ")


def clean_line(text: str) -> str:
    """One line: NFC, no control or invisible characters, single spaces, nothing around it."""
    return " ".join(_CONTROL.sub(" ", _INVISIBLE.sub("", unicodedata.normalize("NFC", text))).split())


def clean_text(text: str) -> str:
    """Several lines, each cleaned by `clean_line`; empty lines go."""
    lines = (clean_line(line) for line in _LINE_BREAK.sub("\n", text).split("\n"))
    return "\n".join(line for line in lines if line)


def without_tags(text: str) -> str:
    """A title without HTML: tags become spaces, entities become characters, the rest is cleaned as one line."""
    return clean_line(html.unescape(_TAG.sub(" ", text)))


def words_of(text: str) -> list[str]:
    """The words of a text in Turkish lower case, without punctuation: what two texts are compared by."""
    return _WORD.findall(lower(text))


def looks_english(text: str) -> bool:
    """Whether a paragraph of four words or more is English rather than Turkish, by function words and letters."""
    # Plain lower() here: English "In" must meet "in"; Turkish words of the list hold no capital I or İ in running text.
    words = _WORD.findall(text.lower())
    if len(words) < 4:
        return False
    turkish = sum(word in _TURKISH_WORDS for word in words) + sum(letter in _TURKISH_LETTERS for letter in text)
    return sum(word in _ENGLISH_WORDS for word in words) > turkish


def as_sentence(text: str) -> str:
    """The text with a full stop where it ends without any mark; KeNet's definitions come without one."""
    return text if not text or text[-1] in ".!?…:;\"'”’)" else f"{text}."
