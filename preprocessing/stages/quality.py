"""Quality filters of Gopher, FineWeb and (where asked for) C4, as datatrove has them, set for Turkish.

The numbers are FineWeb-2's for Turkish (its `tur_Latn` settings, which its authors computed from Turkish web text) where it
has one, else the original's; docs/decisions/0016 shows what they do to good and bad Turkish text. datatrove finds Turkish
words with spaCy; here one regular expression does, and `benchmarks/preprocessing_stages.py` compares the two.

The defaults are for documents of several sentences: of the sample corpus of single sentences they keep 1%, and with

    - quality: {min_words: 3, min_stop_words: 0, top_ngrams: []}

95%: what is left are the rules about signs, word length and repetition. As a stage's settings are those of all sources,
sentences and documents are best prepared by two YAML files.
"""

from __future__ import annotations

from typing import ClassVar

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from datatrove.utils.text import PUNCTUATION_SET, split_into_words
from datatrove.utils.word_tokenizers import WordTokenizer
from pydantic import BaseModel, ConfigDict, Field

from preprocessing.stages.settings import Share
from preprocessing.turkish import capitalize, sentence_spans, tokens, upper

# FineWeb-2's list for tur_Latn without its "the".
STOP_WORDS = (
    *("ve", "bir", "olarak", "bu", "ile", "için", "olan", "da", "de"),
    *("tarafından", "yılında", "sonra", "en", "daha", "ilk"),
)
# What a finished line ends with in Turkish print. datatrove's own set has 170 signs of the world's scripts and no quotes.
LINE_ENDS = (".", "!", "?", "…", ":", ";", '"', "'", "”", "’", "»", ")")
# What is a share of a document's lines; how many of them repeat is asked of two lines already.
_SHARES_OF_LINES = ("max_bullet_lines", "max_ellipsis_lines", "min_punctuated_lines", "max_short_lines")
_FINEWEB2 = "FineWeb-2's setting for Turkish"
_GOPHER = "Gopher, table A1"


class QualitySettings(BaseModel):
    """Thresholds of the quality stage; 0 switches a rule off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_words: int = Field(default=50, ge=0, description="fewest words of a document: Gopher's, kept by FineWeb-2")
    max_words: int = Field(default=100_000, ge=0, description="most words of a document: Gopher's, kept by FineWeb-2")
    min_mean_word_length: float = Field(default=3, ge=0, description=f"shortest mean word, in letters: {_FINEWEB2}")
    max_mean_word_length: float = Field(
        default=10,
        ge=0,
        description="longest mean word, in letters: Gopher's. FineWeb-2 takes 21 for Turkish, beyond any text of the "
        "calibration, where 99% of good documents stay below 7.7",
    )
    max_symbols_per_word: Share = Field(default=0.1, ge=0, description="most # signs, and ellipses, per word: Gopher's")
    max_bullet_lines: Share = Field(default=0.9, ge=0, description="share of lines that start with a bullet: Gopher's")
    max_ellipsis_lines: Share = Field(default=0.3, ge=0, description="share of lines that end with an ellipsis: Gopher's")
    min_alphabetic_words: Share = Field(
        default=0.6,
        ge=0,
        description="share of tokens, signs among them, with a letter: 99% of good documents have 0.595 or more. "
        "FineWeb-2's 0.773 drops half of a dictionary and a fifth of help pages",
    )
    min_stop_words: int = Field(default=2, ge=0, description="fewest different stop words: Gopher's, kept by FineWeb-2")
    stop_words: tuple[str, ...] = Field(default=STOP_WORDS, description=f"lower case; all-capital text counts too: {_FINEWEB2}")

    max_duplicate_lines: Share = Field(default=0.303, ge=0, description=f"share of lines seen before: {_FINEWEB2}")
    top_ngrams: tuple[tuple[int, Share], ...] = Field(
        default=((2, 0.094), (3, 0.114), (4, 0.136)),
        description=f"(n, share of characters in the most frequent n-gram): {_FINEWEB2}",
    )
    duplicate_ngrams: tuple[tuple[int, Share], ...] = Field(
        default=((5, 0.168), (6, 0.151), (7, 0.135), (8, 0.123), (9, 0.116), (10, 0.107)),
        description=f"(n, share of characters in n-grams seen before): {_FINEWEB2}",
    )
    max_duplicate_paragraphs: Share = Field(
        default=0, ge=0, description=f"share of paragraphs seen before: off in FineWeb-2; {_GOPHER}: 0.3"
    )

    min_punctuated_lines: Share = Field(default=0.2, ge=0, description=f"share of lines that end a sentence: {_FINEWEB2}")
    max_short_lines: Share = Field(
        default=0, ge=0, description="share of lines of short_line letters or less: off in FineWeb-2; FineWeb: 0.67"
    )
    short_line: int = Field(default=30, ge=1, description="letters of a short line: FineWeb's")
    max_duplicate_line_characters: Share = Field(
        default=0.1, ge=0, description="share of characters in repeated lines: FineWeb-2's"
    )
    max_lines_per_word: Share = Field(default=0.273, ge=0, description=f"line breaks per word, above it a list: {_FINEWEB2}")
    min_lines: int = Field(
        default=3,
        ge=0,
        description="fewest lines, empty ones aside, that a document must have for the shares of lines (bullets, ellipses, "
        "sentence ends, short ones) to be asked: of one or two lines a share says nothing. Ours, see docs/decisions/0016",
    )

    c4: bool = Field(
        default=False,
        description="also C4's rules: drop documents with lorem ipsum or a curly bracket, cut lines with a word of over "
        "1,000 letters, JavaScript warnings or English cookie notices. FineWeb-2 does not apply them",
    )
    c4_min_words_per_line: int = Field(default=3, ge=-1, description="with c4, shorter lines are cut: C4's; -1 keeps them")
    c4_min_sentences: int = Field(
        default=5, ge=-1, description="with c4, documents of fewer sentences are dropped: C4's; -1 keeps them"
    )


class TurkishTokens(WordTokenizer):
    """datatrove's interface to words and sentences, over one regular expression: some 70 times as fast as its spaCy one."""

    def __init__(self) -> None:
        super().__init__("tur_Latn")

    def word_tokenize(self, text: str) -> list[str]:
        """Words (with what follows an apostrophe) and signs, in order."""
        return tokens(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """The sentences, without white space around them."""
        return [text[start:end].strip() for start, end in sentence_spans(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each sentence, in characters."""
        return sentence_spans(text)


class QualityFilter(BaseFilter):
    """Drop documents that one of the rules calls low quality; the first rule that does gives the reason."""

    name = "quality"
    REASONS: ClassVar[dict[str, str]] = {
        "empty": "the document has no text",
        "short_document": "fewer words than min_words",
        "long_document": "more words than max_words",
        "short_words": "the mean word is shorter than min_mean_word_length",
        "long_words": "the mean word is longer than max_mean_word_length",
        "hash_signs": "too many # signs for its words",
        "ellipses": "too many ellipses for its words",
        "bullet_lines": "almost every line starts with a bullet",
        "ellipsis_lines": "too many lines end with an ellipsis",
        "few_alphabetic_words": "too many tokens are numbers or signs",
        "few_stop_words": "it lacks the words that running Turkish text has",
        "duplicate_paragraphs": "too many paragraphs repeat",
        "duplicate_lines": "too many lines repeat",
        "duplicate_line_characters": "too much of the text stands in lines that repeat",
        "top_ngrams": "one phrase makes up too much of the text",
        "duplicate_ngrams": "too much of the text stands in phrases that repeat",
        "unpunctuated_lines": "too few lines end as sentences do",
        "short_lines": "too many lines are short",
        "list_lines": "too many line breaks for its words",
        "lorem_ipsum": "it holds placeholder text",
        "curly_bracket": "it holds a curly bracket, as program code does",
        "few_sentences": "too few sentences are left after C4's cuts",
    }
    ADVICE: ClassVar[dict[str, str]] = {
        "empty": "look at what `repair` or the source's `text_field` leaves of it: no setting of `quality:` keeps empty text",
        "short_document": "lower min_words; for a source of single sentences also set min_stop_words: 0 and top_ngrams: [] "
        "below `quality:`",
        "long_document": "raise max_words below `quality:`, or set it to 0",
        "short_words": "lower min_mean_word_length below `quality:`",
        "long_words": "raise max_mean_word_length below `quality:`; words that lost their spaces look so too",
        "hash_signs": "raise max_symbols_per_word below `quality:`",
        "ellipses": "raise max_symbols_per_word below `quality:`",
        "bullet_lines": "raise max_bullet_lines below `quality:`",
        "ellipsis_lines": "raise max_ellipsis_lines below `quality:`",
        "few_alphabetic_words": "lower min_alphabetic_words below `quality:`",
        "few_stop_words": "lower min_stop_words below `quality:`, or give it other stop_words",
        "duplicate_paragraphs": "raise max_duplicate_paragraphs below `quality:`",
        "duplicate_lines": "raise max_duplicate_lines below `quality:`",
        "duplicate_line_characters": "raise max_duplicate_line_characters below `quality:`",
        "top_ngrams": "raise the shares of top_ngrams below `quality:`; for single sentences set top_ngrams: []",
        "duplicate_ngrams": "raise the shares of duplicate_ngrams below `quality:`",
        "unpunctuated_lines": "lower min_punctuated_lines below `quality:`; for lines that are wrapped put `repair` before it",
        "short_lines": "raise max_short_lines or lower short_line below `quality:`",
        "list_lines": "raise max_lines_per_word below `quality:`; for lines that are wrapped put `repair` before it",
        "lorem_ipsum": "set c4: false below `quality:`",
        "curly_bracket": "set c4: false below `quality:`",
        "few_sentences": "lower c4_min_sentences below `quality:`, or set it to -1",
    }
    # datatrove's reasons -> ours; its n-gram reasons carry the n, which the settings tell as well
    _KEYS: ClassVar[dict[str, str]] = {
        "gopher_short_doc": "short_document",
        "gopher_long_doc": "long_document",
        "gopher_below_avg_threshold": "short_words",
        "gopher_above_avg_threshold": "long_words",
        "gopher_too_many_hashes": "hash_signs",
        "gopher_too_many_ellipsis": "ellipses",
        "gopher_too_many_bullets": "bullet_lines",
        "gopher_too_many_end_ellipsis": "ellipsis_lines",
        "gopher_below_alpha_threshold": "few_alphabetic_words",
        "gopher_enough_stop_words": "few_stop_words",
        "dup_para_frac": "duplicate_paragraphs",
        "dup_line_frac": "duplicate_lines",
        "char_dup_ratio": "duplicate_line_characters",
        "line_punct_ratio": "unpunctuated_lines",
        "short_line_ratio": "short_lines",
        "list_ratio": "list_lines",
        "too_few_sentences": "few_sentences",
    }

    def __init__(self, settings: QualitySettings) -> None:
        super().__init__()
        self.settings = settings
        self.stop_words = frozenset(every_casing(settings.stop_words))
        self.words = words = TurkishTokens()
        # cheap rules first, n-grams after them; datatrove caches the last texts' words, so they are split once
        repetition = [_gopher_repetition(settings, words)]
        last = [*repetition, _c4(settings, words)] if settings.c4 else repetition
        few = settings.model_copy(update=dict.fromkeys(_SHARES_OF_LINES, 0))
        self.rules: list[BaseFilter] = [_gopher_quality(settings, words), _fineweb(settings, words), *last]
        self.rules_of_few_lines: list[BaseFilter] = [_gopher_quality(few, words), _fineweb(few, words), *last]

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep the document (True) or drop it with a key of `REASONS`; with `c4`, lines of its text may be cut."""
        if not doc.text.strip():
            return False, "empty"
        doc.metadata["measures"] = measures(doc.text, self.words, self.stop_words)
        few_lines = sum(bool(line.strip()) for line in doc.text.split("\n")) < self.settings.min_lines
        for rule in self.rules_of_few_lines if few_lines else self.rules:
            verdict = rule.filter(doc)
            if verdict is not True:
                assert isinstance(verdict, tuple), verdict
                return False, self._key(verdict[1])
        return True

    def _key(self, reason: str) -> str:
        if reason.startswith("duplicated_"):
            return "duplicate_ngrams"
        if reason.startswith("top_"):
            return "top_ngrams"
        key = self._KEYS.get(reason, reason)
        assert key in self.REASONS, reason
        return key


def every_casing(stop_words: tuple[str, ...]) -> list[str]:
    """Old statutes and headings are all capitals: VE, İÇİN. datatrove compares words as they are written."""
    return [form for word in stop_words for form in (word, capitalize(word), upper(word))]


def measures(text: str, words: WordTokenizer, stop_words: frozenset[str]) -> dict[str, float]:
    """What the main rules look at, for the ledger; counted as datatrove does, which keeps the last texts' words."""
    lines = [line for line in text.split("\n") if line.strip()]
    everything = split_into_words(text, words)
    # the first letter decides nearly always, and a generator for each word would take longer than some of the rules
    found = [word for word in everything if word[0] not in PUNCTUATION_SET or not PUNCTUATION_SET.issuperset(word)]
    alphabetic = sum(word[0].isalpha() or any(map(str.isalpha, word)) for word in found)
    return {
        "words": len(found),
        "mean_word_length": sum(map(len, found)) / max(1, len(found)),
        "stop_words": len(stop_words.intersection(found)),
        "alphabetic_words": alphabetic / max(1, len(everything)),
        "duplicate_lines": 1 - len(set(lines)) / len(lines),
        "punctuated_lines": sum(line.endswith(LINE_ENDS) for line in lines) / len(lines),
        "lines_per_word": text.count("\n") / max(1, len(everything)),
    }


def _gopher_quality(settings: QualitySettings, words: WordTokenizer) -> BaseFilter:
    return GopherQualityFilter(
        min_doc_words=settings.min_words,
        max_doc_words=settings.max_words,
        min_avg_word_length=settings.min_mean_word_length,
        max_avg_word_length=settings.max_mean_word_length,
        max_symbol_word_ratio=settings.max_symbols_per_word,
        max_bullet_lines_ratio=settings.max_bullet_lines,
        max_ellipsis_lines_ratio=settings.max_ellipsis_lines,
        max_non_alpha_words_ratio=settings.min_alphabetic_words,
        min_stop_words=min(settings.min_stop_words, len(settings.stop_words)),
        stop_words=every_casing(settings.stop_words),
        language=words,
    )


def _gopher_repetition(settings: QualitySettings, words: WordTokenizer) -> BaseFilter:
    return GopherRepetitionFilter(
        dup_line_frac=settings.max_duplicate_lines,
        dup_para_frac=settings.max_duplicate_paragraphs,
        dup_line_char_frac=None,  # FineWeb's rule below asks the same with its own number, as in FineWeb-2
        dup_para_char_frac=None,
        top_n_grams=settings.top_ngrams,
        dup_n_grams=settings.duplicate_ngrams,
        language=words,
    )


def _fineweb(settings: QualitySettings, words: WordTokenizer) -> BaseFilter:
    off = float("inf")
    return FineWebQualityFilter(
        line_punct_thr=settings.min_punctuated_lines,
        stop_chars=LINE_ENDS,
        short_line_thr=settings.max_short_lines or off,
        short_line_length=settings.short_line,
        char_duplicates_ratio=settings.max_duplicate_line_characters or off,
        new_line_ratio=settings.max_lines_per_word or off,
        language=words,
    )


def _c4(settings: QualitySettings, words: WordTokenizer) -> BaseFilter:
    return C4QualityFilter(
        remove_citations=False,  # "[12]" is a footnote here
        filter_no_terminal_punct=False,  # left out by FineWeb too: it cuts headings
        min_num_sentences=settings.c4_min_sentences,
        min_words_per_line=settings.c4_min_words_per_line,
        language=words,
    )
