"""New entries for the target languages: byte pair encoding, continued from any segmentation.

`tokenizers` trains BPE from characters only. Each entry of the segmentation that is to be continued is therefore written as
one character of its own, beyond the first plane of Unicode: merges of these characters are merges of the entries. BPE's trainer
counts whole numbers, so that the same words give the same merges however many threads work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import regex
from numpy.typing import NDArray

from preprocessing.graft.teacher import SPACE, Teacher

_FIRST = 0x10000
_MOST_ENTRIES = 0x110000 - _FIRST
_MOST_TRAINED = 20_000_000  # words that the trainer is given: a word's count is scaled down to it, and stays 1 or more
_LETTERS = regex.compile(r" ?[\p{L}\p{M}]+")
Run = tuple[int, ...]  # ids of entries beside one another


def letter_runs(
    teacher: Teacher, pieces: Sequence[str], ids: NDArray[np.int64], lengths: NDArray[np.int64], counts: NDArray[np.float64]
) -> list[tuple[Run, float]]:
    """The stretches of letters of segmented words, as (ids, count), two entries and more each.

    New entries are letters only, with or without a leading space. Numbers, punctuation and mixtures are the teacher's affair:
    words with a comma would fill a vocabulary with doubles.

    `pieces` is the vocabulary by id, `ids` (tokens,) and `lengths` (words,) are the segmentation, `counts` is (words,).
    """
    kinds = _kinds(teacher, pieces)
    flat, found, start = ids.tolist(), [], 0
    for length, count in zip(lengths.tolist(), counts.tolist(), strict=True):
        word = flat[start : start + length]
        start += length
        if count <= 0 or length < 2:
            continue
        if teacher.byte_level:  # parts of characters have no kind of their own, the word has
            text = teacher.text_of("".join(pieces[number] for number in word))
            if text is not None and _LETTERS.fullmatch(text):
                found.append((tuple(word), count))
            continue
        found += [(run, count) for run in _runs(word, kinds)]
    return found


def _kinds(teacher: Teacher, pieces: Sequence[str]) -> list[int]:
    """By id: 2 for a piece with a leading space (such begins a run), 1 for other letters, 0 for everything else."""
    kinds = []
    for piece in pieces:
        text = None if teacher.byte_level else teacher.text_of(piece)
        letters = text is not None and (piece == SPACE or _LETTERS.fullmatch(text))
        kinds.append(0 if not letters else 2 if piece.startswith(SPACE) else 1)
    return kinds


def _runs(word: Sequence[int], kinds: Sequence[int]) -> Iterator[Run]:
    run: list[int] = []
    for number in word:
        if kinds[number] != 1:
            if len(run) > 1:
                yield tuple(run)
            run = []
        if kinds[number]:
            run.append(number)
    if len(run) > 1:
        yield tuple(run)


def continue_merges(runs: Iterable[tuple[Run, float]], pieces: Sequence[str], wanted: int) -> list[tuple[str, str]]:
    """Up to `wanted` merges, the most frequent pair first, as BPE's trainer goes on from `runs`.

    A pair must occur twice. Both halves of a merge are entries of `pieces` or products of merges before it.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    assert len(pieces) <= _MOST_ENTRIES, len(pieces)
    runs = list(runs)
    total = sum(count for _, count in runs)
    scale = min(1.0, _MOST_TRAINED / total) if total else 1.0
    alphabet = {number for run, _ in runs for number in run}
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + wanted, min_frequency=2, special_tokens=[], show_progress=False, max_token_length=None
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(_lines(runs, scale), trainer)
    import orjson

    merges = orjson.loads(tokenizer.to_str())["model"]["merges"]
    spelled = [[("".join(pieces[ord(sign) - _FIRST] for sign in half)) for half in merge] for merge in merges]
    return [(left, right) for left, right in spelled]


def _lines(runs: Sequence[tuple[Run, float]], scale: float) -> Iterator[str]:
    for run, count in runs:
        word = "".join(chr(_FIRST + number) for number in run) + " "
        left = max(1, round(count * scale))
        while left:
            part = min(left, 1000)
            yield word * part
            left -= part
