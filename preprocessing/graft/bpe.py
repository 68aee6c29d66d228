"""The three rules for BPE teachers, byte-level (GPT-2, Llama 3, Qwen) and with byte fallback (Llama 2, Gemma).

A BPE entry is made by merges, so an entry that stays keeps the entries that it is made of. New merges are learned on top of a
segmentation that stays ("continued" BPE) and rank behind the merges which made it: what a text gave in training, it gives
again. What is pruned is never a part of something that stays, so what stays comes about as it did before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.graft.choose import ranking
from preprocessing.graft.grown import Grown, Model, Rule, grow, reserved, room
from preprocessing.graft.learn import continue_merges, letter_runs
from preprocessing.graft.reach import spelled_by_text
from preprocessing.graft.settings import Language
from preprocessing.graft.teacher import Teacher
from preprocessing.graft.words import Words, bare, segment, uses

Merge = tuple[str, str]
_SLACK = 1.1  # merges that are asked for, as a multiple of the entries wanted: some give an entry that is there already


class Merges:
    """The teacher's merges: what an entry is made of."""

    def __init__(self, teacher: Teacher) -> None:
        self.all: list[Merge] = [(left, right) for left, right in teacher.settings["model"]["merges"]]
        self.ranks = {merge: rank for rank, merge in enumerate(self.all)}
        self.ways: dict[str, Merge | None] = {}  # None: several ways, the one that encoding takes is found by doing it
        for left, right in self.all:
            product = left + right
            self.ways[product] = None if product in self.ways else (left, right)
        self._whole_words = bool(teacher.settings["model"].get("ignore_merges"))
        self._bytes = teacher.bytes

    def parents(self, piece: str) -> Merge | None:
        """The last merge when a piece's own spelling is encoded; None for single characters and what merges do not give."""
        if self.ways.get(piece) is None and piece in self.ways:
            self.ways[piece] = self._last_merge(piece)
            if self.ways[piece] is None:
                del self.ways[piece]
        return self.ways.get(piece)

    def _last_merge(self, piece: str) -> Merge | None:
        parts = list(piece)
        while len(parts) > 2:
            ranked = [(self.ranks[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in self.ranks]
            if not ranked:
                return None
            _, place = min(ranked)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        merge = (parts[0], parts[1])
        return merge if merge in self.ranks else None

    def family(self, piece: str) -> list[str] | None:
        """The piece and all that it is made of, parts first; None where merges do not make it."""
        if len(piece) == 1 or piece in self._bytes:
            return [piece]
        merge = self.parents(piece)
        if merge is None:
            return [piece] if self._whole_words else None
        found: dict[str, None] = {}
        for part in merge:
            family = self.family(part)
            if family is None:
                return None
            found |= dict.fromkeys(family)
        return [*found, piece]


@dataclass(frozen=True)
class BPEGraft:
    """A BPE teacher, its languages and their words, as the rules need them."""

    teacher: Teacher
    languages: Sequence[Language]
    words: Words
    size: int

    @cached_property
    def merges(self) -> Merges:
        """What the teacher's entries are made of."""
        return Merges(self.teacher)

    @cached_property
    def usable(self) -> set[str]:
        """The teacher's pieces that a text can spell."""
        return spelled_by_text(self.teacher, self.teacher.pieces.values())

    @cached_property
    def teacher_uses(self) -> NDArray[np.float64]:
        """(languages, ids): how often the teacher uses its entries."""
        return uses(bare(self.teacher.tokenizer), self.words, max(self.teacher.settings["model"]["vocab"].values()) + 1)

    @cached_property
    def fixed(self) -> list[str]:
        """Single bytes and the characters that the texts use, with what they are made of."""
        if self.teacher.byte_level:
            used = np.flatnonzero(self.teacher_uses.sum(axis=0)).tolist()
            families = {part for number in used for part in self._family(self.teacher.pieces.get(number))}
            whole = sorted(piece for piece in families if len(self.teacher.text_of(piece) or "") == 1)
        else:
            characters = {character for word in self.words.words for character in word}
            whole = sorted(characters & self.teacher.ids.keys())
        return list(dict.fromkeys([*sorted(self.teacher.bytes), *self._families(whole)]))

    @cached_property
    def new_characters(self) -> list[str]:
        """Those of target languages that occur twice and that a teacher with byte fallback spells by bytes.

        What is spelled by bytes can be no part of a learned entry, so a script that the teacher lacks would never be learned.
        """
        if self.teacher.byte_level:
            return []
        targets = [number for number, language in enumerate(self.languages) if language.target]
        counts: dict[str, float] = {}
        for word, count in zip(self.words.words, self.words.counts[targets].sum(axis=0).tolist(), strict=True):
            for character in word:
                counts[character] = counts.get(character, 0.0) + count
        new = [character for character in sorted(counts) if counts[character] >= 2 and character not in self.teacher.in_model]
        spelled = spelled_by_text(self.teacher, new)
        return [character for character in new if character in spelled]

    def _family(self, piece: str | None) -> list[str]:
        return (self.merges.family(piece) or []) if piece is not None else []

    def _families(self, pieces: Iterable[str]) -> Iterator[str]:
        for piece in pieces:
            yield from self._family(piece)

    def used(self, languages: Sequence[int]) -> list[str]:
        """The teacher's usable pieces that some languages (by number) use, the first to keep first."""
        gains = self.teacher_uses[list(languages)]
        order = ranking(gains, [self.languages[number].share for number in languages]) if languages else np.zeros(0, np.int64)
        total = gains.sum(axis=0)
        pieces = (self.teacher.pieces.get(number) for number in order.tolist() if total[number])
        return [piece for piece in pieces if piece is not None and piece in self.usable]

    @cached_property
    def everything(self) -> list[str]:
        """The teacher's usable pieces: those that any language uses, then the others in the teacher's order."""
        unused = [piece for piece in self.teacher.pieces.values() if piece in self.usable]
        return [*self.used(range(len(self.languages))), *unused]

    def with_families(self, wanted: int, chosen: Sequence[str], further: Iterable[str], banned: frozenset[str]) -> list[str]:
        """`chosen` and of `further` whole families, `wanted` in all where there are so many that fit."""
        result = dict.fromkeys(chosen)
        for piece in further:
            if len(result) >= wanted:
                break
            new = [part for part in self._family(piece) if part not in result]
            if len(result) + len(new) <= wanted and banned.isdisjoint(new):
                result |= dict.fromkeys(new)
        return list(result)

    def learned(self, base: Sequence[str], wanted: int) -> list[Merge]:
        """Merges for the target languages' words, on top of the teacher reduced to `base`; at most `wanted` new entries."""
        reduced = self._reduced(base)
        pieces = [""] * (max(reduced.get_vocab().values()) + 1)
        for piece, number in reduced.get_vocab().items():
            pieces[number] = piece
        counts = self.words.mixture([language.share if language.target else 0.0 for language in self.languages])
        mine = np.flatnonzero(counts)
        ids, lengths = segment(reduced, [self.words.words[number] for number in mine.tolist()])
        runs = letter_runs(self.teacher, pieces, ids, lengths, counts[mine])
        taken = set(reserved(self.teacher))
        merges = continue_merges(runs, pieces, int(wanted * _SLACK) + 16)
        return [merge for merge in merges if "".join(merge) not in taken]

    def _reduced(self, base: Sequence[str]) -> Any:
        from tokenizers import Tokenizer, models

        old = self.teacher.settings["model"]
        inside = set(base)
        unknown = [old["unk_token"]] if old.get("unk_token") else []
        vocab = {piece: number for number, piece in enumerate(dict.fromkeys([*unknown, *base]))}
        merges = [merge for merge in self.merges.all if merge[0] in inside and merge[1] in inside and "".join(merge) in inside]
        keys = ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges")
        return Tokenizer(models.BPE(vocab=vocab, merges=merges, **{key: old[key] for key in keys if old.get(key)}))


def graft_bpe(
    teacher: Teacher, languages: Sequence[Language], words: Words, size: int, rule: Rule, told: Callable[[str], None]
) -> Grown:
    """Grow a vocabulary of exactly `size` entries by a rule. Raises `UserError` for a size that cannot be."""
    graft = BPEGraft(teacher, languages, words, size)
    if rule == "used":
        wanted = room(teacher, size, len(graft.fixed))
        return grow(teacher, size, lambda banned: _used(graft, wanted, banned), told)
    fixed = [*graft.fixed, *graft.new_characters]
    wanted = room(teacher, size, len(fixed))
    free = wanted - len(fixed)
    target = sum(language.share for language in languages if language.target)
    base = fixed
    if rule == "joint":
        others = [number for number, language in enumerate(languages) if not language.target]
        most = len(fixed) + int(free * (1 - target))
        base = graft.with_families(most, fixed, graft.used(others), frozenset())
        free = wanted - len(base)
    else:
        free = int(free * target)
    merges = graft.learned(base, free)
    return grow(teacher, size, lambda banned: _continued(graft, base, merges, wanted, len(base) + free, banned), told)


def _used(graft: BPEGraft, wanted: int, banned: frozenset[str]) -> Model:
    """The teacher's pieces by use, with the merges between them."""
    pieces = graft.with_families(wanted, graft.fixed, graft.everything, banned)
    return Model(pieces, merges=graft.merges.all)


def _continued(
    graft: BPEGraft, base: Sequence[str], learned: Sequence[Merge], wanted: int, part: int, banned: frozenset[str]
) -> Model:
    """`base`, then learned entries until there are `part`, then the teacher's: merges in that order."""
    base = [piece for piece in base if piece not in banned]
    inside = set(base)
    chosen = dict.fromkeys(base)
    order = [merge for merge in graft.merges.all if {*merge, "".join(merge)} <= inside]
    for left, right in learned:
        product = left + right
        if len(chosen) >= part and product not in chosen:
            break
        if left in chosen and right in chosen and product not in banned:
            chosen.setdefault(product)
            order.append((left, right))
    pieces = graft.with_families(wanted, list(chosen), graft.everything, banned)
    return Model(pieces, merges=[*order, *graft.merges.all])
