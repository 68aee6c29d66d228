"""Arrays against the plain definition: all ways to spell a word, enumerated."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.graft.choose import ranking
from preprocessing.graft.lattice import best_paths, build, expected_counts

PIECES = ["a", "b", "c", "ab", "bc", "abc", "ca"]
WORDS = st.lists(st.text(alphabet="abc", min_size=1, max_size=6), min_size=1, max_size=6)
PROBABILITIES = st.lists(st.floats(0.01, 1), min_size=len(PIECES), max_size=len(PIECES))


def spellings(word):
    """Every way to spell a word, as numbers of pieces."""
    if not word:
        return [[]]
    return [
        [number, *rest]
        for number, piece in enumerate(PIECES)
        if word.startswith(piece)
        for rest in spellings(word[len(piece) :])
    ]


@given(WORDS, PROBABILITIES, st.floats(0, 5))
def test_expected_counts_are_those_of_all_spellings(words, probabilities, scale):
    lattice = build(words, {piece: number for number, piece in enumerate(PIECES)})
    counts = np.arange(1.0, len(words) + 1)[None]
    expected = np.zeros(len(PIECES))
    for word, count in zip(words, counts[0], strict=True):
        ways = spellings(word)
        weights = np.array([math.prod(probabilities[number] for number in way) for way in ways])
        for way, weight in zip(ways, weights / weights.sum(), strict=True):
            np.add.at(expected, way, weight * count)
    found = expected_counts(lattice, np.array(probabilities), counts, np.full(len(words), scale))
    np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-12)


@given(WORDS, PROBABILITIES)
def test_best_paths_are_the_best_spellings(words, probabilities):
    scores = np.log(probabilities)
    best, steps = best_paths(build(words, {piece: number for number, piece in enumerate(PIECES)}), scores)
    for word, value, number in zip(words, best, steps, strict=True):
        sums = [(sum(scores[piece] for piece in way), len(way)) for way in spellings(word)]
        assert value == pytest.approx(max(sums)[0])
        assert any(length == number and total == pytest.approx(value) for total, length in sums)


def test_a_word_itself_can_be_left_out_and_pieces_can_go():
    lattice = build(["ab", "a"], {piece: number for number, piece in enumerate(PIECES)}, whole=False)
    best, steps = best_paths(lattice, np.log(np.full(len(PIECES), 0.5)))
    assert steps.tolist() == [2, 0] and best[1] == -np.inf
    alive = np.ones(len(PIECES), bool)
    alive[1] = False
    assert best_paths(lattice.only(alive), np.zeros(len(PIECES)))[0][0] == -np.inf
    assert best_paths(lattice.words(np.array([1, 0])), np.zeros(len(PIECES)))[0].tolist() == [-np.inf, 0.0]


def test_a_long_word_does_not_underflow():
    lattice = build(["a" * 128], {"a": 0, "aa": 1})
    found = expected_counts(lattice, np.array([1e-9, 1e-9]), np.ones((1, 1)), np.array([10.0]))
    assert found[0, 0] + 2 * found[0, 1] == pytest.approx(128)


@given(st.integers(2, 40), st.integers(0, 1000), st.floats(0.1, 0.9))
def test_every_language_gets_its_share(candidates, seed, share):
    gains = np.random.default_rng(seed).integers(0, 4, (2, candidates)).astype(float)
    shares = [share, 1 - share]
    order = ranking(gains, shares).tolist()
    assert sorted(order) == list(range(candidates))
    useful = [int((gain > 0).sum()) for gain in gains]
    for first in range(1, candidates + 1):
        chosen = order[:first]
        for gain, part, most in zip(gains, shares, useful, strict=True):
            assert sum(gain[number] > 0 for number in chosen) >= min(most, math.floor(first * part + 1e-9) - 1)
