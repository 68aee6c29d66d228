"""Sketches of the wording of documents, beside the exact Jaccard similarity of their runs of words."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from preprocessing.stages.overlap import Overlap, jaccard
from preprocessing.turkish import fold, words

OVERLAP = Overlap(least=0.4, short_words=50, run_words=3)
WORDS = st.lists(st.sampled_from([f"kelime{number}" for number in range(30)]), min_size=30, max_size=100)


def runs(text, size=3):
    found = words(fold(text))
    return {tuple(found[start : start + size]) for start in range(len(found) - size + 1)}


def estimate(one, other, overlap=OVERLAP):
    sketches = overlap.sketches([one, other])
    return jaccard(sketches[:1, 1:], sketches[1:, 1:])[0]


def agree(one, other, overlap=OVERLAP):
    sketches = overlap.sketches([one, other])
    return bool(overlap.agree(sketches, sketches, np.array([0]), np.array([1]))[0])


@given(WORDS, WORDS)
def test_the_estimate_is_near_the_share_of_common_runs(one, other):
    text, changed = " ".join(one), " ".join([*one, *other])
    both = runs(text) | runs(changed)
    assume(len(both) >= 40)  # of a few runs two may share a bin, and the estimate is of the rest; such texts are not asked for
    exact = len(runs(text) & runs(changed)) / len(both)
    assert estimate(text, changed) == pytest.approx(exact, abs=0.2)


def test_the_estimates_of_long_documents_err_by_hundredths():
    random = np.random.default_rng(3)
    errors = []
    for changed in np.linspace(0, 0.3, 60):
        one = [f"w{number}" for number in random.integers(10**6, size=3000)]
        other = [word if random.random() > changed else "başka" for word in one]
        both, same = runs(" ".join(one)) | runs(" ".join(other)), runs(" ".join(one)) & runs(" ".join(other))
        errors.append(estimate(" ".join(one), " ".join(other)) - len(same) / len(both))
    assert np.std(errors) < 0.04
    assert abs(np.mean(errors)) < 0.015


def test_a_sketch_hangs_on_the_document_alone():
    texts = ["bir iki üç dört", "", "beş", "IŞIK ILIK İŞ " * 40, "altı yedi sekiz dokuz on"]
    together = OVERLAP.sketches(texts)
    assert together.shape == (5, 257) and together.dtype == np.uint8
    assert together.tolist() == [OVERLAP.sketches([text])[0].tolist() for text in texts]
    assert together[:, 0].tolist() == [0, 0, 0, 1, 0]
    assert OVERLAP.sketches([]).shape == (0, 257)


def test_case_and_signs_make_no_difference_and_the_order_of_words_does():
    text = " ".join(f"sözcük{number}" for number in range(60))
    assert estimate(f"IŞIK, KÂR! {text}", f"ışık kar {text.replace(' ', ', ')}.") == 1
    assert estimate(text, " ".join(reversed(text.split()))) == 0


def test_only_where_one_is_long_wording_is_asked_for():
    short, other = " ".join(f"a{number}" for number in range(50)), " ".join(f"b{number}" for number in range(50))
    assert agree(short, other)
    assert not agree(short, f"{other} b")
    assert not agree(f"{short} a", other)
    assert agree(short, f"{short} b")
    assert not agree(short, other, Overlap(0.4, 10, 3))
    assert agree(f"{short} a", f"{other} b", Overlap(0, 50, 3))


def test_many_pairs_are_compared_in_parts():
    texts = [" ".join(f"{number}x{word}" for word in range(60)) for number in range(3)]
    sketches = OVERLAP.sketches([*texts, texts[1]])
    one, other = np.tile([1, 1, 0], 40_000), np.tile([3, 2, 3], 40_000)
    assert OVERLAP.agree(sketches, sketches, one, other).tolist() == [True, False, False] * 40_000
