from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mecellem.errors import UserError
from post_training.crops import crop_pair, crop_pairs, draw_batches
from preprocessing.corpus.document import Document


def document(number: int, words: int) -> Document:
    return Document(f"d{number}", "a", "x", "t", " ".join(f"{number}_{word}" for word in range(words)))


OPTIONS = {"window_words": 32, "crop_min_words": 3, "crop_largest_share": 0.25}


@given(words=st.integers(6, 500), seed=st.integers(0, 2**32), window=st.integers(6, 64))
def test_crops_are_runs_of_one_window(words, seed, window):
    text = [str(number) for number in range(words)]
    pair = crop_pair(text, window, 3, 0.25, np.random.default_rng(seed))
    numbers = [[int(word) for word in crop.split()] for crop in pair]
    for crop in numbers:
        assert crop == list(range(crop[0], crop[0] + len(crop)))
        assert 3 <= len(crop) <= max(3, window // 4)
    assert max(crop[-1] for crop in numbers) - min(crop[0] for crop in numbers) < window


def test_a_batch_holds_different_documents_and_pairs_stay_in_one():
    documents = [document(number, 10 + 40 * (number % 5)) for number in range(20)]
    pairs = crop_pairs(documents, batches=6, batch_size=8, seed=3, **OPTIONS)
    assert len(pairs) == 48
    owners = [[crop.split()[0].split("_")[0] for crop in pair] for pair in pairs]
    assert all(left == right for left, right in owners)
    for start in range(0, 48, 8):
        assert len({left for left, _ in owners[start : start + 8]}) == 8


def test_same_seed_same_pairs():
    documents = [document(number, 50) for number in range(10)]
    first, again, other = (crop_pairs(documents, batches=2, batch_size=4, seed=seed, **OPTIONS) for seed in (1, 1, 2))
    assert first == again != other


def test_longer_documents_are_drawn_more_often():
    sizes = np.array([10] * 50 + [1000] * 50)
    drawn = draw_batches(sizes, 200, 5, np.random.default_rng(0))
    assert (drawn >= 50).mean() > 0.95


def test_too_few_documents_is_told():
    documents = [document(1, 100), document(2, 5)]
    with pytest.raises(UserError, match=r"needs 2 documents of at least 6 words.*has 1"):
        crop_pairs(documents, batches=1, batch_size=2, seed=0, **OPTIONS)
