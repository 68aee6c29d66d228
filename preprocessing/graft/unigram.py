"""The three rules for Unigram teachers (XLM-RoBERTa, T5): which pieces, and scores that can be compared.

Learned and kept pieces get one scale: probabilities by expectation-maximisation over the mixture of the languages' words, each
language with its share. To these counts the teacher's own probabilities are added as if they were `_PRIOR` of all text, so that
what the texts do not use keeps the teacher's order. A candidate's worth is the number of tokens that it saves: how often it is
expected, times the tokens more that its text would cost without it. (SentencePiece prunes by likelihood: 0.8% more
tokens at equal size, docs/decisions/0025.) Last, a piece that other pieces would outbid gets just above their sum: it was
chosen to be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from preprocessing.graft import lattice as lattices
from preprocessing.graft.choose import ranking
from preprocessing.graft.grown import Grown, Model, Rule, first, grow, room
from preprocessing.graft.learn import continue_merges, letter_runs
from preprocessing.graft.reach import spelled_by_text
from preprocessing.graft.settings import Language
from preprocessing.graft.teacher import Teacher
from preprocessing.graft.words import Words, bare, uses

_PRIOR = 1e-4
_FLOOR = 1e-14  # probability of a piece that nothing speaks for
_SEEDS = 2  # candidates that are learned, as a multiple of the size
_SHRINK = 0.75  # of the candidates stay in each round
_ITERATIONS = 2  # of expectation-maximisation in a round
_ABOVE = 1e-3  # nats
_MOST_NATS = 12.0
_BLOCK = 1 << 16  # words: memory is so many times the characters of the longest
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UnigramGraft:
    """A Unigram teacher, its languages and their words, as the rules need them."""

    teacher: Teacher
    languages: Sequence[Language]
    words: Words
    size: int

    @property
    def shares(self) -> list[float]:
        """Of the languages, in their order."""
        return [language.share for language in self.languages]

    @cached_property
    def usable(self) -> set[str]:
        """The teacher's pieces that a text can spell."""
        return spelled_by_text(self.teacher, self.teacher.pieces.values())

    @cached_property
    def fixed(self) -> list[str]:
        """Single bytes and the characters of the words: the teacher's, and of target languages new ones that occur twice."""
        wanted = self.words.counts[[number for number, language in enumerate(self.languages) if language.target]].sum(axis=0)
        counts: dict[str, float] = {}
        for word, count in zip(self.words.words, wanted.tolist(), strict=True):
            for character in word:
                counts[character] = counts.get(character, 0.0) + count
        characters = [
            character
            for character in sorted(counts)
            if character in self.usable or (character not in self.teacher.in_model and counts[character] >= 2)
        ]
        return [*sorted(self.teacher.bytes), *characters]

    @cached_property
    def teacher_uses(self) -> Floats:
        """(languages, ids): how often the teacher uses its entries."""
        return uses(bare(self.teacher.tokenizer), self.words, len(self.teacher.settings["model"]["vocab"]))

    @cached_property
    def used(self) -> list[str]:
        """The teacher's usable pieces that the texts use, the first to keep first."""
        order = ranking(self.teacher_uses, self.shares)
        total = self.teacher_uses.sum(axis=0)
        return [
            self.teacher.pieces[number]
            for number in order.tolist()
            if total[number] and self.teacher.pieces.get(number) in self.usable
        ]

    @cached_property
    def unused(self) -> list[str]:
        """The teacher's other usable pieces, the most probable first: what fills a vocabulary that nothing else fills."""
        rest = self.usable - set(self.used)
        return sorted(rest, key=lambda piece: (-self.teacher.scores[piece], self.teacher.ids[piece]))

    @cached_property
    def target_counts(self) -> Floats:
        """(words,): the target languages' words as their shares weigh them."""
        return self.words.mixture([language.share if language.target else 0.0 for language in self.languages])

    def learned(self, wanted: int) -> list[str]:
        """New candidates from the target languages' words, the most frequent first."""
        characters = sorted({character for word in self.words.words for character in word})
        numbers = {character: number for number, character in enumerate(characters)}
        lengths = np.array([len(word) for word in self.words.words], np.int64)
        ids = np.fromiter((numbers[character] for word in self.words.words for character in word), np.int64, int(lengths.sum()))
        runs = letter_runs(self.teacher, characters, ids, lengths, self.target_counts)
        found = dict.fromkeys(left + right for left, right in continue_merges(runs, characters, wanted))
        new = [piece for piece in found if piece not in self.teacher.ids]
        spelled = spelled_by_text(self.teacher, new) - self.teacher.in_model
        return [piece for piece in found if piece in spelled or piece in self.usable]


@dataclass(slots=True)
class _Block:
    """Some words of about one length. `counts`: (languages, words), each language's words together 1 over all blocks."""

    words: list[str]
    counts: Floats
    lattice: lattices.Lattice
    scale: Floats

    def set_scale(self, pieces: Sequence[str], probabilities: Floats) -> None:
        """Half the information of the words' characters, in nats each: about what it is in longer pieces."""
        single = {
            piece: min(float(-np.log(max(probability, _FLOOR))), _MOST_NATS)
            for piece, probability in zip(pieces, probabilities.tolist(), strict=True)
            if len(piece) == 1
        }
        self.scale = np.array([sum(single.get(sign, 0.0) for sign in word) / (2 * len(word)) for word in self.words])


def _blocks(words: Words, number_of: Mapping[str, int]) -> list[_Block]:
    total = words.counts.sum(axis=1, keepdims=True)
    counts = np.divide(words.counts, total, out=np.zeros_like(words.counts), where=total > 0)
    order = np.argsort([len(word) for word in words.words], kind="stable")
    found = []
    for start in range(0, len(order), _BLOCK):
        part = order[start : start + _BLOCK]
        own = [words.words[number] for number in part.tolist()]
        found.append(_Block(own, counts[:, part], lattices.build(own, number_of), np.zeros(len(own))))
    return found


class Candidates:
    """Pieces with probabilities over words; pruning takes the worst away in rounds."""

    def __init__(self, graft: UnigramGraft, pieces: Sequence[str], shares: Sequence[float]) -> None:
        self.graft = graft
        self.pieces = list(dict.fromkeys([*graft.fixed, *pieces]))
        number_of = {piece: number for number, piece in enumerate(self.pieces)}
        self.shares = np.array(shares)
        self.alive = np.ones(len(self.pieces), bool)
        self.fixed = np.zeros(len(self.pieces), bool)
        self.fixed[: len(graft.fixed)] = True
        self.blocks = _blocks(graft.words, number_of)
        self.of_pieces = lattices.build(self.pieces, number_of, whole=False)
        self.gone: list[str] = []  # what was pruned, the last first
        self.prior = _PRIOR * np.array([np.exp(graft.teacher.scores.get(piece, -np.inf)) for piece in self.pieces])
        places = np.zeros(len(self.pieces))
        for block in self.blocks:
            mixture = (self.shares[:, None] * block.counts).sum(axis=0)
            places += np.bincount(block.lattice.piece, mixture[block.lattice.word], minlength=len(self.pieces))
        self.probabilities = self._probabilities(places)
        for block in self.blocks:
            block.set_scale(self.pieces, self.probabilities)

    def _probabilities(self, counts: Floats) -> Floats:
        whole = counts / max(counts.sum(), _FLOOR) + self.prior
        return np.where(self.alive, np.maximum(whole / whole.sum(), _FLOOR), 0.0)

    def estimate(self) -> Floats:
        """Expectation-maximisation; (languages, pieces): the expected counts of the last iteration."""
        expected = np.zeros((self.shares.size, len(self.pieces)))
        for _ in range(_ITERATIONS):
            expected = np.zeros_like(expected)
            for block in self.blocks:
                expected += lattices.expected_counts(block.lattice, self.probabilities, block.counts, block.scale)
            self.probabilities = self._probabilities((self.shares[:, None] * expected).sum(axis=0))
        return expected

    def order(self) -> NDArray[np.int64]:
        """The indices of the pieces that are alive, the first to keep first, fixed ones before all."""
        expected = self.estimate()
        _, tokens = lattices.best_paths(self.of_pieces, self.scores())
        gains = np.where(self.alive & ~self.fixed, expected * np.maximum(tokens - 1, 0), 0.0)
        ranked = ranking(gains, self.shares.tolist())
        return np.concatenate([np.flatnonzero(self.fixed), ranked[self.alive[ranked] & ~self.fixed[ranked]]])

    def prune(self, size: int) -> list[str]:
        """The pieces in the order of their worth after all but `size` were taken away, and these behind them."""
        while self.alive.sum() > size:
            order = self.order()
            most = max(size, int(len(order) * _SHRINK))
            self.gone = [self.pieces[number] for number in order[most:].tolist()] + self.gone
            self.alive[order[most:]] = False
            self.of_pieces = self.of_pieces.only(self.alive)
            for block in self.blocks:
                block.lattice = block.lattice.only(self.alive)
            self.probabilities = np.where(self.alive, self.probabilities, 0.0)
        return [self.pieces[number] for number in self.order().tolist()] + self.gone

    def scores(self) -> Floats:
        """(pieces,) natural logarithms, a large negative number for pieces that are gone."""
        return np.log(np.maximum(self.probabilities, 1e-300))

    def reachable_scores(self) -> dict[str, float]:
        """Scores of the pieces that are alive, none of them below what its text would get otherwise."""
        scores = self.scores()
        lengths = np.array([len(piece) for piece in self.pieces])
        for length in range(2, int(lengths.max(initial=0)) + 1):
            these = np.flatnonzero((lengths == length) & self.alive)
            if these.size:
                part = self.of_pieces.words(these)
                other, _ = lattices.best_paths(part, scores)
                scores[these] = np.maximum(scores[these], other + _ABOVE)
        return {self.pieces[number]: round(float(scores[number]), 9) for number in np.flatnonzero(self.alive).tolist()}


def graft_unigram(
    teacher: Teacher, languages: Sequence[Language], words: Words, size: int, rule: Rule, told: Callable[[str], None]
) -> Grown:
    """Grow a vocabulary of exactly `size` entries by a rule. Raises `UserError` for a size that cannot be."""
    graft = UnigramGraft(teacher, languages, words, size)
    wanted = room(teacher, size, len(graft.fixed))
    if rule == "used":
        return grow(teacher, size, lambda banned: _used(graft, wanted, banned), told)
    ranked = _joint(graft, wanted) if rule == "joint" else _target_first(graft, wanted)
    return grow(teacher, size, lambda banned: _scored(graft, ranked, wanted, banned), told)


def _used(graft: UnigramGraft, wanted: int, banned: frozenset[str]) -> Model:
    """The teacher's pieces by use, with the teacher's scores: its segmentation wherever all that it used is there."""
    further = [piece for part in (graft.used, graft.unused) for piece in part if piece not in banned]
    pieces = first(wanted, [piece for piece in graft.fixed if piece in graft.teacher.scores], further)
    return Model(pieces, scores={piece: graft.teacher.scores[piece] for piece in pieces})


def _joint(graft: UnigramGraft, wanted: int) -> list[str]:
    """Learned pieces and the teacher's used ones together, pruned by what they save each language."""
    candidates = Candidates(graft, [*graft.used, *graft.learned(_SEEDS * graft.size)], graft.shares)
    return candidates.prune(wanted)


def _target_first(graft: UnigramGraft, wanted: int) -> list[str]:
    """The target languages' own vocabulary up to their share, then the teacher's pieces by use."""
    shares = [language.share if language.target else 0.0 for language in graft.languages]
    part = len(graft.fixed) + int((wanted - len(graft.fixed)) * sum(shares))
    targets = [number for number, share in enumerate(shares) if share]
    own = Words(graft.words.words, graft.words.counts[targets])
    target_graft = UnigramGraft(graft.teacher, [graft.languages[number] for number in targets], own, graft.size)
    shares = [share / sum(shares) for share in shares if share]
    learned = Candidates(target_graft, graft.learned(_SEEDS * part), shares).prune(part)
    return [*learned[:part], *graft.used, *learned[part:]]


def _scored(graft: UnigramGraft, ranked: Sequence[str], wanted: int, banned: frozenset[str]) -> Model:
    allowed = [piece for part in (ranked, graft.unused) for piece in part if piece not in banned]
    pieces = first(wanted, graft.fixed, allowed)
    candidates = Candidates(graft, pieces, graft.shares)
    candidates.estimate()
    return Model(pieces, scores=candidates.reachable_scores())
