"""Put back the dots of i that programs without Turkish casing rules took or gave: BELEDIYESI, beledıyesı, karari.

Such a program spoils all of a text's words alike, so the text decides whether, and the lexicon how: a word is changed only
where it is unknown and exactly one way of dotting it is known. Lexicons know names and English words too ("ınformation"),
so two such words are needed, one of which can be Turkish only, and no sign that capitals or small letters are right.
Text of some length without any of the letters of Turkish ("yargitay karari gorusuldu") lacks more than dots and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import product

from preprocessing.stages.lexicon import Lexicon
from preprocessing.turkish import WORDS, words

_MOST_LETTERS = 6  # to be dotted in one word: 64 ways
_MOST_WORDS = 2000  # looked at in one document
_TURKISH = frozenset("çğöşüÇĞÖŞÜ")
_ROMAN = re.compile("[IVXLCDM]+")
# What shows that capitals are right; at the beginning of a word İ may be older than the damage ("İzmir" gives "İZMIR").
_RIGHT_CAPITALS = re.compile(r"\b[A-ZÇĞİÖŞÜÂÎÛ]+İ[A-ZÇĞİÖŞÜÂÎÛ]*\b")
_NO_LETTERS_BY_CHANCE = 20  # words; of Turkish ones nearly every second has one of its letters


def redot(text: str, lexicon: Callable[[], Lexicon], share: float) -> str:
    """The text with its dots put right, where at least `share` of its unknown words become known by that.

    `lexicon` is called when the first word is to be looked up.
    """
    if _TURKISH.isdisjoint(text) and len(text.split(maxsplit=_NO_LETTERS_BY_CHANCE)) > _NO_LETTERS_BY_CHANCE:
        return text
    if "I" in text and not _RIGHT_CAPITALS.search(text):
        text = _flipped(text, "I", "İ", lexicon(), share)
    if "ı" not in text and "i" in text:
        return _flipped(text, "i", "ı", lexicon(), share)
    if "i" not in text and "ı" in text:
        return _flipped(text, "ı", "i", lexicon(), share)
    return text


def _flipped(text: str, wrong: str, right: str, lexicon: Lexicon, share: float) -> str:
    unknown = [word for word in _doubtful(text, wrong) if not lexicon.known(word)]
    found = {word: flipped for word in unknown if wrong in word and (flipped := _only_way(word, wrong, right, lexicon))}
    if len(found) < max(2, share * len(unknown)) or not any(_only_turkish(word, lexicon) for word in found.values()):
        return text
    return WORDS.sub(lambda match: found.get(match[0], match[0]), text)


def _doubtful(text: str, wrong: str) -> Iterable[str]:
    """Different words in which the wrong letter could stand: of capitals for I, else beginning with a small letter."""
    distinct = dict.fromkeys(words(text))
    if wrong == "I":
        every = [word for word in distinct if "I" in word or word.isupper()]
    else:
        every = [word for word in distinct if word[0].islower()]
    return [word for word in every if len(word) > 2 and word.isalpha() and not _ROMAN.fullmatch(word)][:_MOST_WORDS]


def _only_way(word: str, wrong: str, right: str, lexicon: Lexicon) -> str:
    """The only spelling with other dots that the lexicon knows; empty where it knows none or several."""
    if word.count(wrong) > _MOST_LETTERS:
        return ""
    spellings = map("".join, product(*((wrong, right) if letter == wrong else (letter,) for letter in word)))
    known = [spelling for spelling in spellings if spelling != word and lexicon.known(spelling)]
    return known[0] if len(known) == 1 else ""


def _only_turkish(word: str, lexicon: Lexicon) -> bool:
    analysis = lexicon.analyse(word)
    return not _TURKISH.isdisjoint(word) or (analysis is not None and analysis.suffixes != "")
