"""Put back the dots of i that programs without Turkish casing rules took or gave: BELEDIYESI, beledıyesı, karari.

Such a program spoils all of a text's words alike, so the text decides whether, and the lexicon how: a word is changed only
where it is unknown and exactly one way of dotting it is known, or where one way is that of a frequent word: lexicons know
"ılgılı", which nobody writes. They know names and English words too ("ınformation"), so two such words are needed, one of
which can be Turkish only, and no sign that capitals or small letters are right. Beside a frequent word one in capitals that
begins with İ is enough, as a program that takes dots leaves what had them ("İLE ILGILI").
Text of some length without any of the letters of Turkish ("yargitay karari gorusuldu") lacks more than dots and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

from preprocessing.stages.frequent import FREQUENT
from preprocessing.stages.lexicon import Lexicon
from preprocessing.turkish import WORDS, fold, words

_MOST_LETTERS = 6  # to be dotted in one word: 64 ways
_MOST_WORDS = 2000  # looked at in one document
_TURKISH = frozenset("çğöşüÇĞÖŞÜ")
_ROMAN = re.compile("M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")  # MILLI is none
_CAPITALS = re.compile(r"\b[A-ZÇĞİÖŞÜÂÎÛ]{2,}\b")
_NO_LETTERS_BY_CHANCE = 20  # words; of Turkish ones nearly every second has one of its letters
_USUAL = {word.replace("ı", "i"): word for word in FREQUENT}  # by what all of a word's dottings share


def redot(text: str, lexicon: Callable[[], Lexicon], share: float) -> str:
    """The text with its dots put right, where at least `share` of its unknown words become known by that.

    `lexicon` is called when the first word is to be looked up.
    """
    if _TURKISH.isdisjoint(text) and len(text.split(maxsplit=_NO_LETTERS_BY_CHANCE)) > _NO_LETTERS_BY_CHANCE:
        return text
    if "I" in text and not _are_capitals_right(text):
        text = _flipped(text, "I", "İ", lexicon(), share)
    if "ı" not in text and "i" in text:
        return _flipped(text, "i", "ı", lexicon(), share)
    if "i" not in text and "ı" in text:
        return _flipped(text, "ı", "i", lexicon(), share)
    return text


def _are_capitals_right(text: str) -> bool:
    """Whether İ stands inside a word of capitals; at its beginning it may be older than the damage ("İzmir" gives "İZMIR")."""
    return any("İ" in match[0][1:] for match in _CAPITALS.finditer(text))


def _flipped(text: str, wrong: str, right: str, lexicon: Lexicon, share: float) -> str:
    doubtful = _doubtful(text, wrong)
    usual = {word: other for word in doubtful if wrong in word and (other := _usual_way(word, wrong, right))}
    unknown = [word for word in doubtful if word not in usual and not lexicon.known(word)]
    found = {word: flipped for word in unknown if wrong in word and (flipped := _only_way(word, wrong, right, lexicon))}
    witness = bool(usual) and wrong == "I" and any(word[0] == "İ" and word not in found for word in _CAPITALS.findall(text))
    found |= usual
    if len(found) + witness < max(2, share * (len(unknown) + len(usual))):
        return text
    if not witness and not any(_only_turkish(word, lexicon) for word in found.values()):
        return text
    return WORDS.sub(lambda match: found.get(match[0], match[0]), text)


def _doubtful(text: str, wrong: str) -> list[str]:
    """Different words in which the wrong letter could stand: of capitals for I, else beginning with a small letter."""
    distinct = dict.fromkeys(words(text))
    if wrong == "I":
        every = [word for word in distinct if "I" in word or word.isupper()]
    else:
        every = [word for word in distinct if word[0].islower()]
    return [word for word in every if len(word) > 2 and word.isalpha() and not _ROMAN.fullmatch(word)][:_MOST_WORDS]


def _usual_way(word: str, wrong: str, right: str) -> str:
    """The spelling of the frequent word that this one is but for lost dots; empty where there is none."""
    usual = _USUAL.get(fold(word).replace("ı", "i"))
    if usual is None or (wrong == "I" and not word.isupper()):
        return ""
    pairs = zip(word, usual, strict=True)
    spelling = "".join(right if letter == wrong and other == fold(right) else letter for letter, other in pairs)
    return spelling if spelling != word and fold(spelling) == usual else ""


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
