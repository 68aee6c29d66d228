"""The Turkish morphological filter: does a text use suffixes and lemmas as running Turkish does?

Measures, each the mean over windows of 50 words, so that none grows or falls with the length of a document; see
docs/decisions/0015 for why they are defined so:

- suffix entropy: Shannon entropy of the suffix sequences of the window's words ("Acc", "P3sg+Gen", none ...), divided by
  that of good Turkish, so 1 is usual and the paper's threshold is 0.75;
- lemma diversity: different lemmas / words; the paper's threshold is 0.5;
- known words: the share that the analyser knows. A word that it does not know has no suffixes and is its own lemma.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.filters.base_filter import BaseFilter
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from preprocessing.stages.lexicon import MOST_WORDS, AnalyserName, Lexicon, check_analyser
from preprocessing.turkish import fold, words

WINDOW = 50  # words; also Gopher's shortest document
# A word as one integer: number of its lemma, of its suffix sequence, whether it is known.
_SUFFIX_BITS = 24
_LEMMA_SHIFT = _SUFFIX_BITS + 1
_SUFFIX_MASK = (1 << _SUFFIX_BITS) - 1


class MorphologySettings(BaseModel):
    """Thresholds of the morphological filter; 0 switches a rule off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    analyser: AnalyserName = Field(default="akana", description="akana (86,000 words/s), zeyrek (1,200) or zemberek (2,000)")
    cache: Path | None = Field(default=None, description="folder in which tasks share what a slow analyser found")
    reference_entropy: float = Field(
        default=3.0,
        gt=0,
        description="bits that a window of good Turkish has with akana: the sample's sources have medians of 2.88 to 3.05. "
        "Another analyser names suffixes in its own way: measure it with `mecellem prepare calibrate`",
    )
    min_suffix_entropy: float = Field(default=0.75, ge=0, description="in parts of good Turkish's: the paper's 75%")
    min_lemma_diversity: float = Field(default=0.5, ge=0, le=1, description="the paper's 50%")
    min_known_words: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="share of words that the analyser knows: ours, see docs/decisions/0015",
    )


class Measures(NamedTuple):
    """Means over the windows of one document; the first may pass 1."""

    suffix_entropy: float
    lemma_diversity: float
    known_words: float


class MorphologyFilter(BaseFilter):
    """Drop documents whose words are not inflected, or do not vary, as those of running Turkish are."""

    name = "morphology"
    REASONS: ClassVar[dict[str, str]] = {
        "unknown_words": "the analyser does not know enough of its words",
        "low_suffix_entropy": "its words carry too few different suffixes for running Turkish",
        "low_lemma_diversity": "it says the same words again and again",
    }

    def __init__(self, settings: MorphologySettings) -> None:
        super().__init__()
        check_analyser(settings.analyser)
        self.settings = settings

    @cached_property
    def lexicon(self) -> Lexicon:
        """Loaded when the first document comes, in the process that meets it."""
        return Lexicon(self.settings.analyser, self.settings.cache)

    @cached_property
    def _numbers(self) -> _Numbers:
        return _Numbers(self.lexicon)

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents that are kept; at the end the words that were new go to the cache folder."""
        yield from super().run(data, rank, world_size)
        self.lexicon.save()

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep the document (True) or drop it with a key of `REASONS`; the measures go to `metadata["measures"]`."""
        measures = self.measure(doc.text)
        if measures is None:
            self.stat_update("too_short_to_judge")
            return True
        doc.metadata.setdefault("measures", {}).update(measures._asdict())
        if measures.known_words < self.settings.min_known_words:
            return False, "unknown_words"
        if measures.suffix_entropy < self.settings.min_suffix_entropy:
            return False, "low_suffix_entropy"
        if measures.lemma_diversity < self.settings.min_lemma_diversity:
            return False, "low_lemma_diversity"
        return True

    def measure(self, text: str) -> Measures | None:
        """The measures of a text, None where it has fewer words than a window. Numbers count as no words."""
        packed = np.fromiter(map(self._numbers.__getitem__, words(text)), np.int64)
        packed = packed[packed >= 0]
        if len(packed) < WINDOW:
            return None
        windows = _windows(packed, WINDOW)
        return Measures(
            suffix_entropy=float(_entropy((windows >> 1) & _SUFFIX_MASK).mean()) / self.settings.reference_entropy,
            lemma_diversity=float(_distinct(windows >> _LEMMA_SHIFT).mean()) / WINDOW,
            known_words=float((windows & 1).mean()),
        )


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
        lemma, suffixes = analysis or (fold(word), "")
        lemma_number = self._lemmas.setdefault(lemma, len(self._lemmas))
        suffix_number = self._suffixes.setdefault(suffixes, len(self._suffixes))
        assert suffix_number <= _SUFFIX_MASK
        return lemma_number << _LEMMA_SHIFT | suffix_number << 1 | (analysis is not None)


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
