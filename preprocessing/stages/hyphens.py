"""Which hyphens at the ends of lines belong to the word ("TBMM-/de", "Türk-/iş") and which only cut it ("mahke-/mesi")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from preprocessing.stages.lexicon import Analysis

Analyse = Callable[[str], Analysis | None]  # a word -> what the lexicon says of it, None where it does not know it
_SHORTEST = 3  # letters of a half that counts as a word: nearly every syllable of two is one


def join_parts(parts: Sequence[str], analyse: Analyse) -> str | None:
    """The word whose parts, given without the hyphens, stood on lines of their own; None where nothing tells its form.

    The hyphen stays behind a single letter, which is never left alone at the end of a line (Türk Dil Kurumu, Yazım Kılavuzu:
    Satır Sonunda Kelimelerin Bölünmesi), and behind an abbreviation. Else a whole that the lexicon knows has none, and an
    unknown whole of known parts has.
    """
    marks = ["-" if _is_own(*two, analyse) else "" for two in pairwise(parts)]
    if any(marks) or analyse("".join(parts)):
        return parts[0] + "".join(mark + part for mark, part in zip(marks, parts[1:], strict=True))
    if all(len(part) >= _SHORTEST and analyse(part) for part in parts):
        return "-".join(parts)
    return None


def _is_own(first: str, second: str, analyse: Analyse) -> bool:
    """Whether the hyphen between two parts belongs to the word, although the lexicon may know it without."""
    if len(first) == 1 or (first.isupper() and not second[0].isupper()):
        return True
    whole = analyse(first + second)
    # dictionaries list "Türk-İş" as the abbreviation "türkiş"
    return whole is not None and whole.abbreviation and bool(analyse(first) and analyse(second))
