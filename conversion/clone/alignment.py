"""Which of the teacher's rows each entry of the new vocabulary is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from conversion.clone.splitting import Splitter
from conversion.clone.vocabulary import ROLES, Spelled, TokenizerFolder, spelled


class Kind(IntEnum):
    """What became of an id of the new vocabulary."""

    HOLE = 0  # no entry has this id
    COPIED = 1  # the teacher has the same entry
    COMPOSED = 2  # of the pieces into which the teacher splits its text
    SPECIAL = 3  # a special token, of the teacher's with the same role, or of the same string where it has no role
    UNMAPPED = 4  # nothing in the teacher stands for it


@dataclass(frozen=True, slots=True)
class Alignment:
    """Entry i of the new vocabulary is made of the teacher's rows `pieces[offsets[i]:offsets[i + 1]]`, in order of the text.

    `kinds`: uint8 `[n]`, of `Kind`. `offsets`: int64 `[n + 1]`. `pieces`: int64. Holes and what is unmapped have no pieces.
    `unmapped`: strings of the latter, with the reason. `partly`: those of composed entries of which the teacher spells
    only a part.
    """

    kinds: np.ndarray
    offsets: np.ndarray
    pieces: np.ndarray
    unmapped: dict[str, str]
    partly: tuple[str, ...] = ()

    @property
    def lengths(self) -> np.ndarray:
        """Number of pieces of each entry, int64 `[n]`."""
        return np.diff(self.offsets)

    def counts(self) -> dict[str, int]:
        """Entries by what became of them."""
        return {kind.name.lower(): int((self.kinds == kind).sum()) for kind in Kind}

    def histogram(self) -> dict[int, int]:
        """Composed entries by their number of pieces."""
        found = Counter(self.lengths[self.kinds == Kind.COMPOSED].tolist())
        return dict(sorted(found.items()))


def align(teacher: TokenizerFolder, target: TokenizerFolder) -> Alignment:
    """Find what every entry of `target` is made of. Linear in the two vocabularies."""
    rows = target.size
    kinds = np.zeros(rows, dtype=np.uint8)
    found: list[list[int]] = [[] for _ in range(rows)]
    unmapped: dict[str, str] = {}
    same = _same_entries(teacher, target.family)
    rest: list[Spelled] = []
    for piece, number in target.ids.items():
        if number in target.special:
            match = same_role(number, piece, teacher, target)
            kinds[number] = Kind.UNMAPPED if match is None else Kind.SPECIAL
            if match is None:
                unmapped[piece] = "a special token that the teacher has neither in this role nor by this string"
            else:
                found[number] = [match]
            continue
        text = spelled(piece, number, target)
        match = same.find(piece, text)
        if match is None:
            rest.append(text)
        else:
            kinds[number], found[number] = Kind.COPIED, [match]
    names = {number: piece for piece, number in target.ids.items()}
    split, partly = Splitter(teacher).split(rest) if rest else ([], set())
    for text, ids in zip(rest, split, strict=True):
        kinds[text.id], found[text.id] = (Kind.COMPOSED, ids) if ids else (Kind.UNMAPPED, [])
        if not ids:
            unmapped[names[text.id]] = "the teacher cannot spell it"
    lengths = np.fromiter((len(ids) for ids in found), dtype=np.int64, count=rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pieces = np.fromiter((number for ids in found for number in ids), dtype=np.int64, count=int(offsets[-1]))
    return Alignment(kinds, offsets, pieces, unmapped, tuple(names[rest[place].id] for place in sorted(partly)))


def same_role(number: int, piece: str, teacher: TokenizerFolder, target: TokenizerFolder) -> int | None:
    """The teacher's special token for one of the new vocabulary: of the same role, else of the same string."""
    for role in ROLES:
        if target.roles.get(role) == number and (match := teacher.role(role)) is not None:
            return match
    match = teacher.ids.get(piece)
    return match if match in teacher.special else None


@dataclass(frozen=True, slots=True)
class _Entries:
    """The teacher's entries that are no special tokens: by string for a vocabulary of its family, else by text."""

    teacher: TokenizerFolder
    texts: dict[bytes, int] | None
    fallbacks: dict[bytes, int]

    def find(self, piece: str, text: Spelled) -> int | None:
        """The id of the same entry, None where there is none."""
        if self.texts is None:
            match = self.teacher.ids.get(piece)
            return None if match in self.teacher.special else match
        if text.fallback or (len(text.raw) == 1 and text.raw[0] >= 0x80):
            return self.fallbacks.get(text.raw)
        match = self.texts.get(text.raw)
        return self.texts.get(b" " + text.raw) if match is None and text.either else match


def _same_entries(teacher: TokenizerFolder, family: str) -> _Entries:
    if teacher.family == family:
        return _Entries(teacher, None, {})
    texts: dict[bytes, int] = {}
    fallbacks: dict[bytes, int] = {}
    for piece, number in teacher.ids.items():
        if number in teacher.special:
            continue
        text = spelled(piece, number, teacher)
        if text.fallback or (len(text.raw) == 1 and teacher.family == "byte-level"):
            fallbacks[text.raw] = number
        if text.fallback:
            continue
        texts.setdefault(text.raw, number)
        if text.either:
            texts.setdefault(b" " + text.raw, number)
    return _Entries(teacher, texts, fallbacks)
