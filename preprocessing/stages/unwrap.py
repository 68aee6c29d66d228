"""Rejoin paragraphs that were broken into lines of one width, as PDF text layers, mail and old text files have them.

Whether a text is wrapped is asked of the whole of it: where lines end inside sentences, such lines are all about as long as
the longest, because the next word would not have fitted. Verse, lists, tables, headings and code break their lines for
other reasons, and theirs are of any length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from preprocessing.stages.hyphens import Analyse, join_parts

_FEWEST = 3  # lines that end inside a sentence; two may be chance
_NARROWEST, _WIDEST = 40, 200  # letters: below are columns of a newspaper and verse, above are paragraphs
_FULL = 0.88  # of the width; letters of print differ in breadth, so lines of one breadth differ in length
_FULL_LINES = 0.7  # share of the lines that end inside a sentence which must be full
_BROKEN_SENTENCES = 0.15  # share of all line breaks that must be inside a sentence
_SENTENCES = 0.05  # sentence ends for each of them at least: long entries of a list have none
_SHORTEST = 0.5  # of the width: a shorter line is a heading, or its break is meant
_PROSE = 0.8  # share of a line's signs that are letters or single spaces
_END = re.compile(r"[.!?…:][\"'”’»)\]]*$")
# A line break that may be inside a sentence, found quickly: most texts have too few for a closer look.
_BREAK = re.compile(r"[^\s.!?…:][ \t]*\n[ \t]*[\"'“‘«(\[]*[^\W\d_A-ZÇĞİÖŞÜ]")
_INNER_END = re.compile(r"[^\W\d]{2}[.!?…][\"'”’»)\]]*(?=\s|$)")
_LETTER_FIRST = re.compile(r"[\"'“‘«(\[]*([^\W\d_])")
# Columns of a table, dots of a table of contents; then what program code has and prose does not.
_COLUMNS = re.compile(r"\t|\S {3,}\S|[|]|[_.·]{4,}")
_CODE = re.compile(r"[^\W\d]\(\S|\w_\w|[={}<>\\]|->|::|\)[;:]$|^(?:import|from|return|def|class|if|for|else|try)\b")
_CODE_LINES = 0.2  # share of the lines which makes a text code
_ITEM = re.compile(
    r"[-–—•*·▪●◦■□►✓>#%§+/]|(?:MADDE|Madde|BÖLÜM|Bölüm|KISIM|EK|GEÇİCİ|Geçici|Fıkra|Bent)\s+\S+|\(\w{1,3}\)\s|[a-zçğıöşü][.)]\s"
)
_NUMBERED = re.compile(r"(?:\d{1,3}(?:\.\d{1,3})*|[IVX]{1,5})\s?[-–.)]\s|\d{1,3}(?:\.\d{1,3})+\s")
# Who speaks in a transcript: a name in capitals; behind a finished sentence also two to four words. Then a dash or a colon.
_CAPITALS = r"[A-ZÇĞİÖŞÜÂÎÛ][A-ZÇĞİÖŞÜÂÎÛ.'’]+"
_PLACE = r"(?:\s?\([^()\n]{2,40}\))?"
_SPEAKER = re.compile(rf"{_CAPITALS}(?:\s{_CAPITALS}){{0,9}}{_PLACE}\s?(?:[-–—]\s|:(?:\s|$))")
_NAMED = re.compile(rf"(?:[A-ZÇĞİÖŞÜ][^\W\d_]*\.?\s){{1,3}}[A-ZÇĞİÖŞÜ][^\W\d_]+{_PLACE}\s[-–—]\s(?=[\"“A-ZÇĞİÖŞÜ])")
_CUT = re.compile(r"([^\W\d_]+)[-\u2010\u00ac]$")
_FIRST_PART = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line without the space around it, and what its joining hangs on."""

    text: str
    first_word: int  # letters
    starts_low: bool  # with a small letter
    ends_sentence: bool
    prose: bool
    capitals: bool
    code: bool


def unwrap(text: str, analyse: Analyse) -> str:
    """The text with the line breaks inside its paragraphs gone, or as it was where it is not visibly wrapped.

    A word that is cut at the end of its line is joined, with the hyphen where that is its own (`hyphens`); of words that
    the lexicon does not know, names mostly, the hyphen goes.
    """
    if len(_BREAK.findall(text)) < max(_FEWEST, _BROKEN_SENTENCES * text.count("\n") / 3):  # two in three may be blank
        return text
    raw = text.split("\n")
    lines = [_line(line) for line in raw]
    width = _width(lines)
    if not width:
        return text
    pieces = raw[:1]  # put together at the end: a paragraph that grew line by line would be copied as often
    before = lines[0]
    for at, line in enumerate(lines[1:], start=1):
        if not line.text and at + 1 < len(lines) and _goes_over_page(before, lines[at + 1], width):
            continue
        if not _continues(before, line, width):
            pieces += ("\n", raw[at])
        elif whole := _whole(before.text, line.text, analyse):
            first, word = whole
            pieces[-1] = pieces[-1].rstrip()[: -len(first)]
            pieces.append(word)
        else:
            pieces[-1] = pieces[-1].rstrip()
            pieces += (" ", line.text)
        before = line
    return "".join(pieces)


def _whole(before: str, line: str, analyse: Analyse) -> tuple[str, str] | None:
    """The end of a line that goes, and what comes instead with all of the next line; None where no word is cut."""
    cut, part = _CUT.search(before), _FIRST_PART.match(line)
    if cut is None or part is None:
        return None
    first, second = cut[1], part[0]
    if second[0].islower() or (first + second).isupper():
        word = join_parts((first, second), analyse) or first + second
    elif first[0].isupper():
        word = f"{first}-{second}"  # "Türk-/İş"
    else:
        return None  # a dash
    return cut[0], word + line[part.end() :]


def _line(raw: str) -> _Line:
    text = raw.strip()
    first = _LETTER_FIRST.match(text)
    letters = sum(map(str.isalpha, text)) + text.count(" ")
    return _Line(
        text=text,
        first_word=len(text.split(" ", 1)[0]),
        starts_low=first is not None and first[1].islower(),
        ends_sentence=_END.search(text) is not None,
        prose=text.count(" ") >= 3 and letters >= _PROSE * len(text) and not _COLUMNS.search(text),
        capitals=text.isupper(),
        code=_CODE.search(text) is not None,
    )


def _width(lines: list[_Line]) -> int:
    """Letters of a full line; 0 where the text is not wrapped."""
    pairs = [(one, two) for one, two in pairwise(lines) if one.text and two.text]
    if sum(line.code for line in lines) > _CODE_LINES * sum(bool(line.text) for line in lines):
        return 0
    broken = [(one, two) for one, two in pairs if _breaks_a_sentence(one, two)]
    if len(broken) < max(_FEWEST, _BROKEN_SENTENCES * len(pairs)):
        return 0
    if sum(len(_INNER_END.findall(line.text)) for line in lines) < _SENTENCES * len(broken):
        return 0
    lengths = sorted(len(one.text) for one, _ in broken)
    width = lengths[int(0.95 * (len(lengths) - 1))]
    if not _NARROWEST <= width <= _WIDEST:
        return 0
    full = sum(_is_full(one, two, _FULL * width) for one, two in broken)
    return width if full >= _FULL_LINES * len(broken) else 0


def _breaks_a_sentence(before: _Line, line: _Line) -> bool:
    return before.prose and line.starts_low and not before.ends_sentence and not _ITEM.match(line.text)


def _is_full(before: _Line, line: _Line, width: float) -> bool:
    """Whether the next line's first word would not have fitted."""
    return len(before.text) + 1 + line.first_word > width


def _goes_over_page(before: _Line, line: _Line, width: int) -> bool:
    """Whether a sentence goes on behind the empty line that parts two pages."""
    return line.prose and _breaks_a_sentence(before, line) and _is_full(before, line, _FULL * width)


def _continues(before: _Line, line: _Line, width: int) -> bool:
    """Whether a line goes on with the paragraph of the one before it, in a text that is wrapped at `width`."""
    if (
        not before.text
        or not line.text
        or (before.capitals != line.capitals and " " in (line if line.capitals else before).text)
    ):
        return False
    if _SPEAKER.match(line.text) or (before.ends_sentence and _NAMED.match(line.text)):
        return False
    if (before.code and line.code) or _ITEM.match(line.text) or _COLUMNS.search(before.text) or _COLUMNS.search(line.text):
        return False
    if len(before.text) > 1.5 * width:  # a paragraph of one line
        return False
    if before.ends_sentence:
        # the last line of a paragraph may be full by chance; a colon announces what stands in lines of its own
        return (
            not before.text.endswith(":") and not _NUMBERED.match(line.text) and before.prose and _is_full(before, line, width)
        )
    if line.starts_low:
        return len(before.text) >= _SHORTEST * width
    if before.text.endswith((",", ";")) and _NUMBERED.match(line.text):
        return False
    return before.prose and _is_full(before, line, _FULL * width)
