"""Turkish noun forms: number, third-person possessive and case, with vowel harmony, buffer letters and softening.

The grammar is the standard one (Göksel and Kerslake 2005, Turkish: A Comprehensive Grammar, chapters 3, 6 and 8). First and
second persons are left out: legal prose hardly has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

VOWELS = "aeıioöuü"
HIGH = {"a": "ı", "ı": "ı", "e": "i", "i": "i", "o": "u", "u": "u", "ö": "ü", "ü": "ü"}
LOW = {vowel: "a" if vowel in "aıou" else "e" for vowel in VOWELS}
VOICELESS = "fstkçşhp"
PLAIN = str.maketrans("âîû", "aiu")
CASES = ("nominative", "accusative", "dative", "locative", "ablative", "genitive", "instrumental")


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun as the dictionary has it.

    `before_vowel`: its stem in front of a vowel where that differs (hüküm: hükm, sanık: sanığ). `vowel`: what suffixes
    harmonise with where it is not the last vowel as written (iptal: e).
    """

    bare: str
    before_vowel: str = ""
    vowel: str = ""


class Slot(NamedTuple):
    """Which form of a noun."""

    plural: bool
    possessive: bool
    case: str


class Form(NamedTuple):
    """A form in two parts: an apostrophe, where there is one, stands between them (Kanun'un, Kanunu'nun)."""

    base: str
    ending: str


SLOTS = tuple(Slot(*values) for values in product((False, True), (False, True), CASES))


def last_vowel(word: str) -> str:
    """The last vowel letter of a lower-case word."""
    return next(letter for letter in reversed(word.translate(PLAIN)) if letter in VOWELS)


def inflect(noun: Noun, slot: Slot) -> Form:
    """The form of `noun` for `slot`, lower case: madde, third person, genitive: maddesi + nin."""
    stem, soft, vowel = noun.bare, noun.before_vowel or noun.bare, noun.vowel or last_vowel(noun.bare)
    if slot.plural:
        stem = soft = f"{stem}l{LOW[vowel]}r"
        vowel = LOW[vowel]
    if slot.possessive:
        high = HIGH[vowel]
        stem = f"{stem}s{high}" if _ends_in_vowel(stem) else soft + high
        return Form(stem, _case_after_possessive(slot.case, high))
    return _with_case(stem, soft, vowel, slot.case)


def _ends_in_vowel(word: str) -> bool:
    return word.translate(PLAIN)[-1] in VOWELS


def _case_after_possessive(case: str, vowel: str) -> str:
    high, low = HIGH[vowel], LOW[vowel]
    return {
        "nominative": "",
        "accusative": f"n{high}",
        "dative": f"n{low}",
        "locative": f"nd{low}",
        "ablative": f"nd{low}n",
        "genitive": f"n{high}n",
        "instrumental": f"yl{low}",
    }[case]


def _with_case(stem: str, soft: str, vowel: str, case: str) -> Form:
    high, low = HIGH[vowel], LOW[vowel]
    open_end = _ends_in_vowel(stem)
    stop = "t" if stem[-1] in VOICELESS else "d"
    ending = {
        "nominative": "",
        "accusative": f"y{high}" if open_end else high,
        "dative": f"y{low}" if open_end else low,
        "locative": f"{stop}{low}",
        "ablative": f"{stop}{low}n",
        "genitive": f"n{high}n" if open_end else f"{high}n",
        "instrumental": f"yl{low}" if open_end else f"l{low}",
    }[case]
    return Form(soft if ending[:1] and ending[0] in VOWELS else stem, ending)
