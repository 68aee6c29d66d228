"""The Turkish morphological filter: does a text use suffixes and lemmas as running Turkish does?

Measures, the first three of them means over windows of 50 words, so that none grows or falls with the length of a document;
see docs/decisions/0015 for why they are defined so, and 0020 for what is asked of short documents and of science:

- suffix entropy: Shannon entropy of the suffix sequences of 50 known words ("Acc", "P3sg+Gen", none ...), divided by that
  of good Turkish, so 1 is usual and the paper's threshold is 0.75. What the analyser does not know, as the terms of a
  science and foreign names, says nothing about suffixes;
- lemma diversity: different lemmas / words; the paper's threshold is 0.5. An unknown word is its own lemma;
- known words: the share that the analyser knows;
- Turkish letters: the share of ç, ğ, ı, ö, ş, ü and İ in all letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.filters.base_filter import BaseFilter
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from preprocessing.stages.lexicon import MOST_WORDS, AnalyserName, Lexicon, check_analyser, shared_lexicon
from preprocessing.stages.settings import Share
from preprocessing.turkish import fold, words

WINDOW = 50  # words; also Gopher's shortest document
# A word as one integer: number of its lemma, of its suffix sequence, whether it is known.
_SUFFIX_BITS = 24
_LEMMA_SHIFT = _SUFFIX_BITS + 1
_SUFFIX_MASK = (1 << _SUFFIX_BITS) - 1
_TURKISH_LETTERS = "çğıöşüÇĞİÖŞÜ"


class MorphologySettings(BaseModel):
    """Thresholds of the morphological filter; 0 switches a rule off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    analyser: AnalyserName = Field(default="akana", description="akana (86,000 words/s), zeyrek (1,200) or zemberek (2,000)")
    cache: Path | None = Field(  # changes speed, not documents: no part of what decides whether work is done again
        default=None, exclude=True, description="folder in which tasks share what a slow analyser found"
    )
    reference_entropy: float = Field(
        default=3.0,
        gt=0,
        description="bits that a window of good Turkish has with akana: the calibration's sources have medians of 2.9 to 3.2. "
        "Another analyser names suffixes in its own way: `mecellem prepare calibrate` tells the bits of yours",
    )
    min_suffix_entropy: Share = Field(default=0.75, ge=0, description="in parts of good Turkish's: the paper's 75%")
    min_lemma_diversity: Share = Field(default=0.5, ge=0, description="the paper's 50%")
    min_known_words: Share = Field(
        default=0.7, ge=0, description="share of words that the analyser knows: ours, see docs/decisions/0015"
    )
    min_turkish_letters: Share = Field(
        default=0.02, ge=0, description="share of letters: ours; 99% of good texts of 50 words have 0.04, and ASCII text none"
    )
    short_text_allowance: Share = Field(
        default=0.05,
        ge=0,
        description="by so much a document of one window may fall short of the first three, of n windows by 1/sqrt(n) of it: a "
        "mean of few windows is off by chance. Ours, see docs/decisions/0020",
    )


class Measures(NamedTuple):
    """Of one document; the first may pass 1."""

    suffix_entropy: float
    lemma_diversity: float
    known_words: float
    turkish_letters: float


class MorphologyFilter(BaseFilter):
    """Drop documents whose words are not inflected, or do not vary, as those of running Turkish are."""

    name = "morphology"
    REASONS: ClassVar[dict[str, str]] = {
        "unknown_words": "the analyser does not know enough of its words",
        "low_suffix_entropy": "its words carry too few different suffixes for running Turkish",
        "low_lemma_diversity": "it says the same words again and again",
        "few_turkish_letters": "it has next to none of the letters of Turkish, as text typed without them",
    }
    ADVICE: ClassVar[dict[str, str]] = {
        "unknown_words": "lower min_known_words below `morphology:`; old texts and those of a science have words of their own",
        "low_suffix_entropy": "lower min_suffix_entropy below `morphology:`, or set reference_entropy to what "
        "`mecellem prepare calibrate` finds for your text",
        "low_lemma_diversity": "lower min_lemma_diversity below `morphology:`",
        "few_turkish_letters": "lower min_turkish_letters below `morphology:`",
    }

    def __init__(self, settings: MorphologySettings) -> None:
        super().__init__()
        check_analyser(settings.analyser)
        self.settings = settings

    @cached_property
    def lexicon(self) -> Lexicon:
        """Loaded when the first document comes, in the process that meets it."""
        return shared_lexicon(self.settings.analyser, self.settings.cache)

    @cached_property
    def _numbers(self) -> _Numbers:
        return _shared_numbers(self.lexicon)

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents that are kept; at the end the words that were new go to the cache folder."""
        yield from super().run(data, rank, world_size)
        if "lexicon" in vars(self):  # an empty shard needs none
            self.lexicon.save()

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep the document (True) or drop it with a key of `REASONS`; the measures go to `metadata["measures"]`."""
        measured = self._measured(doc.text)
        if measured is None:
            self.stat_update("too_short_to_judge")
            return True
        measures, windows = measured
        doc.metadata.setdefault("measures", {}).update(measures._asdict())
        settings = self.settings
        allowance = settings.short_text_allowance / windows**0.5
        if measures.known_words < settings.min_known_words - allowance:
            return False, "unknown_words"
        if measures.suffix_entropy < settings.min_suffix_entropy - allowance:
            return False, "low_suffix_entropy"
        if measures.lemma_diversity < settings.min_lemma_diversity - allowance:
            return False, "low_lemma_diversity"
        if measures.turkish_letters < settings.min_turkish_letters:
            return False, "few_turkish_letters"
        return True

    def measure(self, text: str) -> Measures | None:
        """The measures of a text, None where it has fewer words than a window. Numbers count as no words."""
        measured = self._measured(text)
        return measured and measured[0]

    def _measured(self, text: str) -> tuple[Measures, int] | None:
        """The measures and the number of windows that they are means of."""
        packed = np.fromiter(map(self._numbers.__getitem__, words(text)), np.int64)
        packed = packed[packed >= 0]
        if len(packed) < WINDOW:
            return None
        windows = _windows(packed, WINDOW)
        known = packed[packed & 1 == 1]
        suffixes = _windows((known >> 1) & _SUFFIX_MASK, min(WINDOW, len(known))) if len(known) else None
        measures = Measures(
            suffix_entropy=0.0 if suffixes is None else float(_entropy(suffixes).mean()) / self.settings.reference_entropy,
            lemma_diversity=float(_distinct(windows >> _LEMMA_SHIFT).mean()) / WINDOW,
            known_words=float((windows & 1).mean()),
            turkish_letters=sum(map(text.count, _TURKISH_LETTERS)) / sum(map(str.isalpha, text)),
        )
        return measures, len(windows)


class _Numbers(dict[str, int]):
    """A word as it is written -> its packed number, or -1 for what is no word; a word is looked up once."""

    def __init__(self, lexicon: Lexicon) -> None:
        super().__init__()
        self._lexicon = lexicon
        self._lemmas: dict[str, int] = {}
        self._suffixes: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        if len(self) >= MOST_WORDS:  # the numbers of lemmas and suffixes stay, so a document may span this
            self.clear()
        number = self[word] = self._pack(word) if word[0].isalpha() else -1
        return number

    def _pack(self, word: str) -> int:
        analysis = self._lexicon.analyse(word)
        lemma, suffixes = (analysis.lemma, analysis.suffixes) if analysis else (fold(word), "")
        lemma_number = self._lemmas.setdefault(lemma, len(self._lemmas))
        suffix_number = self._suffixes.setdefault(suffixes, len(self._suffixes))
        assert suffix_number <= _SUFFIX_MASK
        return lemma_number << _LEMMA_SHIFT | suffix_number << 1 | (analysis is not None)


@lru_cache(maxsize=1)
def _shared_numbers(lexicon: Lexicon) -> _Numbers:
    """Kept from task to task, as the lexicon is."""
    return _Numbers(lexicon)


def _windows(values: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """(windows, window): one after the other; what is left at the end is in a last one that overlaps the one before."""
    whole = values[: len(values) // window * window].reshape(-1, window)
    return whole if whole.size == len(values) else np.concatenate([whole, values[None, -window:]])


def _distinct(windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of different values of each window."""
    return (np.diff(np.sort(windows, axis=1), axis=1) != 0).sum(axis=1) + 1


def _entropy(windows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shannon entropy of each window's values, in bits."""
    rows, size = windows.shape
    ordered = np.sort(windows, axis=1)
    first = np.concatenate([np.ones((rows, 1), np.bool_), np.diff(ordered, axis=1) != 0], axis=1)
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, rows * size))
    weighted = np.bincount(starts // size, weights=counts * np.log2(counts), minlength=rows)
    return np.asarray(np.log2(size) - weighted / size, np.float64)
