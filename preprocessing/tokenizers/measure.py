"""What a tokenizer does with texts: counts per domain, of which every ratio of the comparison is made.

Words are what white space separates. A sum of measures is the measure of both texts, shares of unique tokens included.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.tokenizers.load import NamedTokenizer
from preprocessing.tokenizers.morphemes import Kind, Morphemes
from preprocessing.turkish import lower, upper

_BATCH_BYTES = 1 << 20  # of text: an encoding takes some hundred bytes a token
_MOST_CAPITALS = 2_000  # words whose capitals are tried, the most frequent ones
_EXAMPLES = 5
_LETTER = r"[^\W\d_]"
# A name, abbreviation or number, an apostrophe between, and letters: "Yargıtay'ın", "TBMM’nin", "2011'de".
_SUFFIXED = re.compile(rf"(?<![\w'’])(?P<before>\w+['’])(?P<suffix>{_LETTER}+)(?![\w'’])")
_PLAIN_WORD = re.compile(r"(?<![\w'’])[abcçdefgğhıijklmnoöprsştuüvyz]{3,}(?![\w'’])")
PROBES = ("istanbul", "İstanbul", "İSTANBUL", "ISTANBUL", "ıstanbul", "ışık", "Işık", "IŞIK", "Iğdır", "IĞDIR", "KÂĞIT")


@dataclass(frozen=True, slots=True)
class Domain:
    """Texts of one source and what is counted in them without a tokenizer."""

    name: str
    texts: tuple[str, ...]
    words: int
    characters: int
    bytes: int
    suffixed: Counter[tuple[str, str]]  # (what stands before and with the apostrophe, the suffix) -> occurrences
    plain: Counter[str]  # words in small letters -> occurrences


def domain_of(name: str, texts: Iterable[str]) -> Domain:
    """Count the texts of one source."""
    texts = tuple(texts)
    suffixed: Counter[tuple[str, str]] = Counter()
    plain: Counter[str] = Counter()
    for text in texts:
        suffixed.update((match["before"], match["suffix"]) for match in _SUFFIXED.finditer(text))
        plain.update(_PLAIN_WORD.findall(text))
    words, characters = sum(len(text.split()) for text in texts), sum(map(len, texts))
    return Domain(name, texts, words, characters, sum(len(text.encode()) for text in texts), suffixed, plain)


@dataclass(slots=True)
class Suffixes:
    """How suffixes behind an apostrophe are cut; counts are of occurrences in the text.

    whole: one token has all of the suffix's letters, and none before the apostrophe. crossing: a token has letters of both
    sides. The rest is cut, into `tokens` in all (those that hold letters of the suffix).
    """

    words: int = 0
    whole: int = 0
    crossing: int = 0
    tokens: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)  # a suffix that is not whole -> tokens of its word

    def add(self, other: Suffixes) -> None:
        """Add another text's."""
        self.words += other.words
        self.whole += other.whole
        self.crossing += other.crossing
        self.tokens += other.tokens
        for word, tokens in other.examples.items():
            if len(self.examples) < _EXAMPLES:
                self.examples.setdefault(word, tokens)


@dataclass(slots=True)
class Measures:
    """Counts of one tokenizer on one domain, or on all. `seconds` is the wall time of encoding."""

    documents: int
    words: int
    characters: int
    bytes: int
    uses: NDArray[np.int64]  # (ids,): how often each entry occurs
    exact: int  # documents that decode to themselves
    suffixes: Suffixes
    small: int  # tokens of the capitals' words in small letters, each word once
    capital: int  # the same words in capitals
    seconds: float

    @property
    def tokens(self) -> int:
        """All tokens, without special ones."""
        return int(self.uses.sum())


def measure(tokenizer: NamedTokenizer, domain: Domain) -> Measures:
    """Encode and decode a domain's texts."""
    uses = np.zeros(max(tokenizer.entries) + 1, np.int64)
    exact, seconds = 0, 0.0
    engine = tokenizer.tokenizer
    for batch in _batches(domain.texts):
        started = time.perf_counter()
        encodings = engine.encode_batch_fast(batch, add_special_tokens=False)
        seconds += time.perf_counter() - started
        ids = [encoding.ids for encoding in encodings]
        uses += np.bincount(np.concatenate([np.array(part, np.int64) for part in ids]), minlength=uses.size)
        decoded = engine.decode_batch(ids, skip_special_tokens=False)
        exact += sum(text == back for text, back in zip(batch, decoded, strict=True))
    # Ties go by the word, so that the same text gives the same words.
    words = [word for word, _ in sorted(domain.plain.items(), key=lambda item: (-item[1], item[0]))[:_MOST_CAPITALS]]
    return Measures(
        documents=len(domain.texts),
        words=domain.words,
        characters=domain.characters,
        bytes=domain.bytes,
        uses=uses,
        exact=exact,
        suffixes=_suffixes(tokenizer, domain.suffixed),
        small=_count(tokenizer, words),
        capital=_count(tokenizer, [upper(word) for word in words]),
        seconds=seconds,
    )


def total(parts: Sequence[Measures]) -> Measures:
    """The measures of all domains together."""
    suffixes = Suffixes()
    for part in parts:
        suffixes.add(part.suffixes)
    sums = {
        name: sum(getattr(part, name) for part in parts)
        for name in ("documents", "words", "characters", "bytes", "exact", "small", "capital", "seconds")
    }
    return Measures(uses=np.sum([part.uses for part in parts], axis=0), suffixes=suffixes, **sums)


def ratios(tokenizer: NamedTokenizer, measures: Measures, morphemes: Morphemes) -> dict[str, Any]:
    """Every figure of the comparison but speed; shares are from 0 to 1, None where there was nothing to count."""
    used = np.flatnonzero(measures.uses).tolist()
    kinds = Counter(kind_of(tokenizer, number, morphemes) for number in used)
    bytes_used = sum(int(measures.uses[number]) for number in used if tokenizer.entries[number].single_byte)
    unknown = tokenizer.unknown_id
    suffixes = measures.suffixes
    return {
        "documents": measures.documents,
        "words": measures.words,
        "tokens": measures.tokens,
        "tokens_per_word": _ratio(measures.tokens, measures.words),
        "bytes_per_token": _ratio(measures.bytes, measures.tokens),
        "characters_per_token": _ratio(measures.characters, measures.tokens),
        "unique_tokens": len(used),
        "vocabulary_used": _ratio(len(used), len(tokenizer.entries)),
        "single_byte_share": _ratio(bytes_used, measures.tokens),
        "unknown_share": _ratio(0 if unknown is None else int(measures.uses[unknown]), measures.tokens),
        "turkish_share_of_unique": _ratio(sum(count for kind, count in kinds.items() if kind.turkish), len(used)),
        "pure_share_of_unique": _ratio(sum(count for kind, count in kinds.items() if kind.pure), len(used)),
        "exact_documents": _ratio(measures.exact, measures.documents),
        "capitals_cost": _ratio(measures.capital, measures.small),
        "apostrophe_words": suffixes.words,
        "apostrophe_whole": _ratio(suffixes.whole, suffixes.words),
        "apostrophe_crossing": _ratio(suffixes.crossing, suffixes.words),
        "apostrophe_tokens_per_suffix": _ratio(suffixes.tokens, suffixes.words),
        "apostrophe_cut_examples": suffixes.examples,
    }


def vocabulary_figures(tokenizer: NamedTokenizer, morphemes: Morphemes) -> dict[str, Any]:
    """Counts over the vocabulary, as the Mecellem paper gives them; added tokens are no candidates."""
    kinds = Counter(kind_of(tokenizer, number, morphemes) for number in tokenizer.entries)
    return {
        "entries": len(tokenizer.entries),
        "added_tokens": sum(entry.added for entry in tokenizer.entries.values()),
        "turkish_tokens": sum(count for kind, count in kinds.items() if kind.turkish),
        "pure_tokens": sum(count for kind, count in kinds.items() if kind.pure),
        "kinds": {kind.value: kinds[kind] for kind in Kind},
    }


def kind_of(tokenizer: NamedTokenizer, number: int, morphemes: Morphemes) -> Kind:
    """What the entry with this id is in Turkish."""
    entry = tokenizer.entries[number]
    return Kind.OTHER if entry.added or not entry.text else morphemes.kind(entry.text, entry.starts_word)


def casing_probes(tokenizer: NamedTokenizer) -> dict[str, dict[str, Any]]:
    """How İ, ı, I and i come out: the tokens of a few words, and whether decoding gives the word back."""
    probes: dict[str, dict[str, Any]] = {}
    for word in PROBES:
        encoding = tokenizer.tokenizer.encode(word, add_special_tokens=False)
        back = tokenizer.tokenizer.decode(encoding.ids, skip_special_tokens=False)
        tokens = [tokenizer.shown(number) for number in encoding.ids]
        probes[word] = {"tokens": tokens, "exact": back == word, "lower_cases": back != word and back == lower(word)}
    return probes


def _suffixes(tokenizer: NamedTokenizer, found: Counter[tuple[str, str]]) -> Suffixes:
    result = Suffixes()
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    words = [before + suffix for (before, suffix), _ in ordered]
    # Behind a space, as in a text: some tokenizers have other entries for the beginning of a text.
    for ((before, suffix), count), encoding in zip(ordered, _encode(tokenizer, [f" {word}" for word in words]), strict=True):
        cut = len(before) + 1
        spans = [(start, end) for start, end in encoding.offsets if end > cut]
        crossing = any(start < cut - 1 for start, _ in spans)  # the apostrophe itself may go with the suffix
        whole = len(spans) == 1 and not crossing
        result.words += count
        result.whole += count * whole
        result.crossing += count * crossing
        result.tokens += count * len(spans)
        if not whole and len(result.examples) < _EXAMPLES:
            result.examples[before + suffix] = [tokenizer.shown(number) for number in encoding.ids]
    return result


def _count(tokenizer: NamedTokenizer, words: Sequence[str]) -> int:
    return sum(len(encoding.ids) for encoding in _encode(tokenizer, [f" {word}" for word in words]))


def _encode(tokenizer: NamedTokenizer, texts: list[str]) -> list[Any]:
    return list(tokenizer.tokenizer.encode_batch(texts, add_special_tokens=False))


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None
