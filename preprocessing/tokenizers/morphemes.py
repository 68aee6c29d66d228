"""What a vocabulary entry is in Turkish: a word, a bare root, one suffix, a chain of suffixes, or none of these.

A word is what akana's morphology knows, names and abbreviations aside ("hello" and "the" are among them, and so are
"Ankara" and "Yargıtay"). A root is a word that is its own lemma, or a verb's stem. A suffix is known by trying it: letters
that akana takes behind one of the carriers below as suffixes of that carrier, so the list of suffixes is akana's, in all
vowel harmonies. Of several analyses of one text the one that makes it a whole unit counts.

- "Turkish": word, root, suffix or chain: what stands in Turkish as a unit or a row of units.
- "pure": root or one suffix, with all of its letters and no others.

What it is not: the figures of Bayram et al. (arXiv 2502.07057) come from other tools and another text, and are not
comparable digit by digit. A text is judged without its sentence: a root that is also a word of another language ("on",
"at", "ton") counts, and a piece inside a word that happens to be a root ("at" in "hayatı") counts as one, as it does in
that paper. A single letter counts as a suffix only, "o" aside.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from preprocessing.stages.lexicon import SILENT, check_analyser
from preprocessing.turkish import fold

APOSTROPHES: Final = "'’"
# Nouns and verb stems that end in each kind of vowel, in a voiced and in a voiceless consonant.
_BACK = ("masa", "kapı", "kutu", "kız", "okul", "taş", "kuş", "yaz", "bul", "ara", "oku", "tanı", "yap", "tut")
_FRONT = ("kale", "gemi", "ütü", "ev", "göz", "iş", "türk", "gel", "gör", "bekle", "yürü", "eri", "seç", "öp")
_ALPHABET = frozenset("abcçdefgğhıijklmnoöprsştuüvyz")  # after folding, which makes a of â
_BACK_VOWELS, _FRONT_VOWELS = frozenset("aıou"), frozenset("eiöü")
_NAMES = frozenset({"Prop", "Abbrv"})
_LONGEST_CHAIN = 16  # letters; a longer row of suffixes without its root is no entry that one meets


class Kind(Enum):
    """What an entry is."""

    ROOT = "root"
    WORD = "word"
    SUFFIX = "suffix"
    CHAIN = "chain"
    OTHER = "other"

    @property
    def turkish(self) -> bool:
        """A valid Turkish word or morpheme, or a row of suffixes."""
        return self is not Kind.OTHER

    @property
    def pure(self) -> bool:
        """One whole root or one whole suffix."""
        return self in (Kind.ROOT, Kind.SUFFIX)


class Morphemes:
    """Tells what a text is; each different text is analysed once."""

    def __init__(self) -> None:
        """Raises `UserError` where akana is not installed."""
        check_analyser("akana")
        from akana import Morphology

        self._analyse = Morphology().analyze
        self._known: dict[tuple[str, bool], Kind] = {}

    def kind(self, text: str, starts_word: bool) -> Kind:
        """What an entry's text is, without its leading space; `starts_word` tells whether it had one.

        What begins with an apostrophe can be suffixes only, what begins a word can be a word only.
        """
        apostrophe = text[:1] in APOSTROPHES and bool(text)
        letters = fold(text[1:] if apostrophe else text)
        if not letters or not _ALPHABET.issuperset(letters):
            return Kind.OTHER
        key = (f"'{letters}" if apostrophe else letters, starts_word)
        if key not in self._known:
            self._known[key] = self._best(letters, may_be_word=not apostrophe, may_be_suffix=not starts_word)
        return self._known[key]

    def _best(self, letters: str, may_be_word: bool, may_be_suffix: bool) -> Kind:
        word = self._word(letters) if may_be_word else Kind.OTHER
        if word is Kind.ROOT or not may_be_suffix:
            return word
        suffix = self._suffixes(letters)  # "nin" is a word to some analysers, and a suffix
        return suffix if suffix is Kind.SUFFIX or word is Kind.OTHER else word

    def _word(self, letters: str) -> Kind:
        if len(letters) == 1:
            return Kind.ROOT if letters == "o" else Kind.OTHER
        found = [item for item in self._analyse(letters) if item["secondary_pos"] not in _NAMES]
        if any(_stem_of(item) == letters for item in found):
            return Kind.ROOT
        return Kind.WORD if found else Kind.OTHER

    def _suffixes(self, letters: str) -> Kind:
        if len(letters) > _LONGEST_CHAIN:
            return Kind.OTHER
        vowel = next((letter for letter in letters if letter in _BACK_VOWELS | _FRONT_VOWELS), "")
        carriers = _BACK if vowel in _BACK_VOWELS else _FRONT
        best = Kind.OTHER
        for carrier in carriers if vowel else _BACK + _FRONT:
            for item in self._analyse(carrier + letters):
                if _stem_of(item) != carrier:
                    continue
                if len(_spoken(item)) == 1:
                    return Kind.SUFFIX
                best = Kind.CHAIN
        return best


def _stem_of(item: dict[str, Any]) -> str:
    """The lemma, of a verb without the ending of its dictionary form."""
    lemma = fold(item["lemma"])
    return lemma[:-3] if item["primary_pos"] == "Verb" and lemma.endswith(("mak", "mek")) else lemma


def _spoken(item: dict[str, Any]) -> list[str]:
    return [name for name in item["morphemes"][1:] if name not in SILENT]
