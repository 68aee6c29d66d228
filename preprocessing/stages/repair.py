"""Repair what encodings, keyboards and PDF extraction did to Turkish text; good text stays as it is.

Where a repair could harm text of another kind (the Icelandic þ, the Romanian ș, the hyphen of "anne-baba"), the lexicon
decides: the repair is made only if it turns what is there into Turkish words. `repair` runs to a fixed point, so a repaired
text is never changed again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from pydantic import BaseModel, ConfigDict, Field

from preprocessing.stages.dotting import redot
from preprocessing.stages.hyphens import join_parts
from preprocessing.stages.lexicon import AnalyserName, Lexicon, check_analyser, shared_lexicon
from preprocessing.stages.settings import Share
from preprocessing.stages.unwrap import unwrap
from preprocessing.turkish import DOT_ABOVE, words

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

# UTF-8 read as Latin-1, cp1252 or cp1254: the first byte of a Turkish letter or of a typographic sign, then the second. Â is a
# Turkish letter, so only Latin-1 signs behind it count.
_SECOND = "ŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™"
_MOJIBAKE = re.compile(f"Â[\u00a0-\u00bf]|[ÃÄÅ][\u0080-\u00bf{_SECOND}]|â(?:€|\u0080)")
_LETTERS_OF_TURKISH = "çğıöşüâîûÇĞİÖŞÜÂÎÛ"
# What each letter became; no Turkish text has such pairs, so what ftfy leaves of them is replaced one by one.
_PAIRS = {
    letter.encode().decode(encoding): letter
    for encoding in ("latin-1", "cp1252", "cp1254")
    for letter in _LETTERS_OF_TURKISH
    if all(byte not in (0x81, 0x8D, 0x8E, 0x8F, 0x90, 0x9D, 0x9E) or encoding != "cp1254" for byte in letter.encode())
}
_PAIR = re.compile("|".join(map(re.escape, _PAIRS)))
# What decoding may bring in: Turkish letters, Latin-1, typographic signs. Anything else means that the guess was wrong.
_DECODED = frozenset("çğıöşüÇĞİÖŞÜ‘’‚“”„–—…•‹›€™") | frozenset(map(chr, range(0xA0, 0x100)))
# cp1254 and ISO 8859-9 differ from Latin-1 in six letters only, so text that was read by the wrong one has these instead.
_CODE_PAGE = str.maketrans("ýþðÝÞÐ", "ışğİŞĞ")
_CODE_PAGE_LETTERS = re.compile("[ýþðÝÞÐ]")
# Romanian keyboards have s with a comma; fonts and OCR give a caron for the breve. Turkish has neither.
_LOOKALIKE = str.maketrans("șȘǧǦ", "şŞğĞ")
_LOOKALIKE_LETTERS = re.compile("[șȘǧǦ]")
_MOST_VOTES = 200  # words asked for one document

_DOTTED = re.compile(f"[iıİ]{DOT_ABOVE}+")
_LINE_BREAKS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Controls, direction marks, zero-width spaces, byte-order marks; joiners stay where Persian, Indic scripts and emoji need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
    "|(?<![\u0600-\u0dff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]"
)
_LETTERS = r"[^\W\d_]++"
# A word cut at the end of its line, once or more, by a hyphen or by what code pages made of a soft one.
_CUT = r"[-\u2010\u00ac][ \t]*\n[ \t]*"
_CUT_LINE = re.compile(_CUT)
# Matches every row of parts whole, also one that is no word for what stands behind it (the last group is None then), and
# gives nothing back: a search that began again at each part would take a minute for a page of lines that end in hyphens.
_CUT_WORD = re.compile(
    rf"(?<![^\W\d_])({_LETTERS}(?:{_CUT}{_LETTERS}(?:['’]{_LETTERS})?+)++)([.,;:!?)\]”\"\'»…]*+)([ \t]+|(?=\n)|\Z)?"
)
_MOST_PARTS = 8  # of a word; more lines that end in hyphens are something else
_SOFT_CUT = re.compile("\u00ad[ \t]*\n[ \t]*(\\S+)[ \t]*")
_SPACE = "\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
# Only what has to change matches: replacing every single space by a space would be most of this stage's time.
_SPACES = re.compile(f" ?[{_SPACE}][ {_SPACE}]*| [ ][ {_SPACE}]*")
_AROUND_BREAK = re.compile(" +\n *|\n +")
_EMPTY_LINES = re.compile("\n{3,}")
_MOST_PASSES = 5
# Behind one letter; text of any language has fewer than 30 (Unicode Standard Annex 15, Stream-Safe Text Format).
_MOST_MARKS = 30
_MARKS = re.compile(rf"([^\w\s\x00-\u02ff]{{{_MOST_MARKS + 1},}})")


class RepairSettings(BaseModel):
    """Which repairs are made; each is counted under its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mojibake: bool = Field(default=True, description="UTF-8 that was read as Latin-1 or cp1252 (Ä±, ÅŸ, Ã¼), by ftfy")
    code_page: bool = Field(default=True, description="cp1254 read as Latin-1 (ý, þ, ð for ı, ş, ğ), in Turkish text only")
    lookalikes: bool = Field(default=True, description="s with a comma below and g with a caron, in Turkish text only")
    invisible: bool = Field(default=True, description="NUL, control, zero-width and direction characters, soft hyphens")
    dotted_i: bool = Field(default=True, description="i followed by U+0307, which lower() makes of İ")
    lost_dots: bool = Field(default=True, description="I for İ and i for ı where casing without Turkish rules made them")
    composed: bool = Field(default=True, description="Unicode form NFC: one character for ö instead of o and a combining mark")
    hyphenation: bool = Field(default=True, description="words that a hyphen cuts at the end of a line (mahke-/mesi)")
    wrapped_lines: bool = Field(default=True, description="line breaks inside paragraphs, where a text is visibly wrapped")
    white_space: bool = Field(default=True, description="runs of spaces, spaces around line breaks, more than one empty line")
    analyser: AnalyserName = Field(default="akana", description="the lexicon that decides about words")
    turkish_share: Share = Field(
        default=0.5,
        gt=0,
        description="share of the doubtful words, of three letters or more, that must turn into Turkish ones: our choice",
    )


class Repair(PipelineStep):
    """Repair every document; `changed_<repair>` counts documents that one changed, `changed` those that any did."""

    type = "repair"
    name = "repair"

    def __init__(self, settings: RepairSettings) -> None:
        super().__init__()
        check_analyser(settings.analyser)
        self.settings = settings
        every: dict[str, Callable[[str], str]] = {
            "mojibake": _decode,
            "code_page": self._code_page,
            "invisible": _remove_invisible,
            "dotted_i": _one_dot,
            "composed": _compose,
            "lookalikes": self._lookalikes,
            "lost_dots": self._redot,
            "hyphenation": self._join_cut_words,
            "wrapped_lines": self._unwrap,
            "white_space": _tidy_spaces,
        }
        self._repairs = {name: function for name, function in every.items() if getattr(settings, name)}

    @cached_property
    def lexicon(self) -> Lexicon:
        """Loaded when the first doubtful word comes, in the process that meets it."""
        return shared_lexicon(self.settings.analyser)

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator:
        """Yield every document, repaired."""
        for doc in data or ():
            with self.track_time():
                doc.text, changed = self.repair(doc.text)
            self.stat_update("total", *(f"changed_{name}" for name in sorted(changed)))
            if changed:
                self.stat_update("changed")
            yield doc

    def repair(self, text: str) -> tuple[str, set[str]]:
        """The repaired text and the names of the repairs that changed it."""
        changed: set[str] = set()
        for _ in range(_MOST_PASSES):  # one repair may bring to light what another one mends
            before = text
            for name, function in self._repairs.items():
                repaired = function(text)
                if repaired != text:
                    changed.add(name)
                    text = repaired
            if text == before:
                break
        return text, changed

    def _code_page(self, text: str) -> str:
        return self._translated_if_turkish(text, _CODE_PAGE_LETTERS, _CODE_PAGE)

    def _lookalikes(self, text: str) -> str:
        return self._translated_if_turkish(text, _LOOKALIKE_LETTERS, _LOOKALIKE)

    def _translated_if_turkish(self, text: str, letters: re.Pattern[str], table: dict[int, int]) -> str:
        """The text with its foreign letters replaced, if that makes Turkish words of enough of the words that hold them."""
        if not letters.search(text):
            return text
        doubtful = sorted({word for word in words(text) if len(word) > 2 and letters.search(word)})[:_MOST_VOTES]
        turkish = sum(self.lexicon.known(word.translate(table)) for word in doubtful)
        return text.translate(table) if turkish >= max(1, self.settings.turkish_share * len(doubtful)) else text

    def _redot(self, text: str) -> str:
        return redot(text, lambda: self.lexicon, self.settings.turkish_share)

    def _unwrap(self, text: str) -> str:
        # a lexicon that is loaded when a word is asked for: most texts are not wrapped
        return unwrap(text, lambda word: self.lexicon.analyse(word))

    def _join_cut_words(self, text: str) -> str:
        return _CUT_WORD.sub(self._joined, text) if _CUT_LINE.search(text) else text

    def _joined(self, match: re.Match[str]) -> str:
        """The word on the first line, with the hyphen that is its own ("anne-baba"); all as it was where nothing tells."""
        cut, marks, gap = match.groups()
        parts = re.split(_CUT, cut)
        if gap is None or len(parts) > _MOST_PARTS:
            return match[0]
        if not all(part[0].islower() for part in parts[1:]) and not cut.isupper():
            return match[0]  # "Türk-\nİş"
        if (word := join_parts(parts, self.lexicon.analyse)) is None:
            return match[0]
        return f"{word}{marks}\n" if gap else f"{word}{marks}"


def _ftfy_config() -> TextFixerConfig:
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        replace_lossy_sequences=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=False,
        remove_control_chars=False,
        normalization=None,
    )


def _decode(text: str) -> str:
    """Mojibake undone line by line, only where what comes out is Turkish text or its punctuation."""
    if not _MOJIBAKE.search(text):
        return text
    from ftfy import fix_encoding

    config = _ftfy_config()
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _MOJIBAKE.search(line):
            decoded = _PAIR.sub(lambda match: _PAIRS[match[0]], fix_encoding(line, config))
            if set(decoded) - set(line) <= _DECODED:
                lines[number] = decoded
    return "\n".join(lines)


def _remove_invisible(text: str) -> str:
    text = _LINE_BREAKS.sub("\n", text)
    if "\u00ad" in text:
        text = _SOFT_CUT.sub(r"\1\n", text).replace("\u00ad", "")
    return _INVISIBLE.sub("", text)


def _one_dot(text: str) -> str:
    if DOT_ABOVE not in text:
        return text
    return _DOTTED.sub(lambda match: "İ" if match[0][0] == "İ" else "i", text)


def _compose(text: str) -> str:
    """NFC, but for longer rows of marks than any text has: the time to sort them grows with the square of their number."""
    if unicodedata.is_normalized("NFC", text):
        return text
    parts = _MARKS.split(text)
    return "".join(part if _is_heap(part) else unicodedata.normalize("NFC", part) for part in parts)


def _is_heap(part: str) -> bool:
    return _MARKS.fullmatch(part) is not None and sum(unicodedata.category(sign)[0] == "M" for sign in part) > _MOST_MARKS


def _tidy_spaces(text: str) -> str:
    text = _AROUND_BREAK.sub("\n", _SPACES.sub(" ", text))
    return _EMPTY_LINES.sub("\n\n", text).strip(" \n")
