"""Turkish casing, folding, words and sentences: what every stage that looks into text uses.

Python's own lower() makes "i" of "I" and "i" plus U+0307 of "İ"; Turkish has the pairs I/ı and İ/i.
"""

from __future__ import annotations

import re

DOT_ABOVE = "\u0307"
# A letter and what str.lower() leaves of Turkish: kept apart so that folding is one pass of translate().
_FOLDED = str.maketrans({"â": "a", "î": "i", "û": "u", "’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'"})
# A word keeps its suffix behind an apostrophe ("Yargıtay'ın"); every other sign is a token of its own.
_WORD = r"\w+(?:['’]\w+)*"
WORDS = re.compile(_WORD)
_TOKENS = re.compile(rf"{_WORD}|[^\w\s]")
# A sentence ends with its mark, closing quotes, then a space and a capital, a digit or an opening quote; or with its line.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+(?=[\"'“‘«(\[]*[A-ZÇĞİÖŞÜÂÎÛ0-9])|\n+")
# What stands before a full stop that ends no sentence: initials, ordinals ("3. Hukuk Dairesi") and common short forms.
_SHORT_FORM = re.compile(
    r"\b(?:[A-ZÇĞİÖŞÜ]|\d{1,3}|[Dd]r|[Pp]rof|[Dd]oç|[Yy]rd|[Aa]v|[Mm]ad|[Mm]d|[Ss]ay|[Ss]t|[Nn]o|[Bb]kz|vb|vs|vd|[Öö]rn"
    r"|[Aa]lm|[Ff]r|[İi]ng)\.$"
)


def lower(text: str) -> str:
    """Lower case by Turkish rules: I -> ı, İ -> i (also where İ is written as I and U+0307)."""
    return text.replace("I" + DOT_ABOVE, "i").replace("I", "ı").replace("İ", "i").lower()


def upper(text: str) -> str:
    """Upper case by Turkish rules: i -> İ, ı -> I."""
    return text.replace("i", "İ").replace("ı", "I").upper()


def capitalize(word: str) -> str:
    """The word with a Turkish capital first: istanbul -> İstanbul."""
    return upper(word[:1]) + word[1:]


def fold(text: str) -> str:
    """What two spellings of one text share: Turkish lower case, no circumflex (kâğıt, kağıt), one kind of apostrophe.

    The letters ç, ğ, ı, ö, ş and ü stay: they tell words apart.
    """
    return lower(text).translate(_FOLDED)


def words(text: str) -> list[str]:
    """The words of a text as written, suffixes behind an apostrophe included, without punctuation."""
    return WORDS.findall(text)


def tokens(text: str) -> list[str]:
    """Words and signs: everything that is not white space belongs to exactly one token."""
    return _TOKENS.findall(text)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, in characters; a sentence never runs over a line break."""
    spans, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        if "\n" not in match[0] and _SHORT_FORM.search(text, max(start, match.start() - 8), match.start()):
            continue
        if text[start : match.end()].strip():
            spans.append((start, match.end()))
        start = match.end()
    if text[start:].strip():
        spans.append((start, len(text)))
    return spans
