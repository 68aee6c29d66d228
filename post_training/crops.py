"""Positive pairs without labels: two independent crops of one window of text.

Independent cropping is the augmentation of Contriever (Izacard et al. 2022, "Unsupervised Dense Information Retrieval
with Contrastive Learning", section 3.2): both crops come from the same window of text, their lengths are uniform
between two bounds. Here the unit is the whitespace-separated word, so that the pairs do not depend on the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mecellem.errors import UserError
from preprocessing.corpus.document import Document


def usable_texts(documents: Sequence[Document], crop_min_words: int) -> list[list[str]]:
    """The words of every document that holds two crops of the least length."""
    words = (document.text.split() for document in documents)
    return [text for text in words if len(text) >= 2 * crop_min_words]


def random_crop(words: list[str], least: int, most: int, rng: np.random.Generator) -> str:
    """A contiguous run of `least` to `most` words (both inclusive), at a uniform position."""
    length = int(rng.integers(least, most, endpoint=True))
    start = int(rng.integers(0, len(words) - length, endpoint=True))
    return " ".join(words[start : start + length])


def crop_pair(words: list[str], window: int, least: int, largest_share: float, rng: np.random.Generator) -> tuple[str, str]:
    """Two independent crops of one random window of `words`; each is at most `largest_share` of the window."""
    start = int(rng.integers(0, max(len(words) - window, 0), endpoint=True))
    words = words[start : start + window]
    most = max(least, int(len(words) * largest_share))
    return random_crop(words, least, most, rng), random_crop(words, least, most, rng)


def draw_batches(sizes: NDArray[np.int64], batches: int, batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Document numbers of shape (batches, batch_size): chosen in proportion to `sizes`, all different within a batch.

    Other documents of the batch serve as negatives, so one document twice would be a false negative.
    """
    # The largest keys u**(1/size) are a weighted sample without replacement (Efraimidis and Spirakis 2006).
    rows = []
    for _ in range(batches):
        keys = np.log(rng.random(len(sizes))) / sizes
        rows.append(np.argpartition(keys, -batch_size)[-batch_size:])
    return np.stack(rows)


def crop_pairs(
    documents: Sequence[Document],
    *,
    batches: int,
    batch_size: int,
    window_words: int,
    crop_min_words: int,
    crop_largest_share: float,
    seed: int,
) -> list[tuple[str, str]]:
    """`batches * batch_size` pairs in training order; every batch draws from different documents.

    Raises `UserError` when the corpus has fewer usable documents than one batch needs.
    """
    texts = usable_texts(documents, crop_min_words)
    if len(texts) < batch_size:
        raise UserError(
            f"contrastive training needs {batch_size} documents of at least {2 * crop_min_words} words in a batch, the "
            f"train split has {len(texts)}: fetch a larger corpus or lower --batch-size"
        )
    rng = np.random.default_rng(seed)
    sizes = np.array([len(text) for text in texts], dtype=np.int64)
    chosen = draw_batches(sizes, batches, batch_size, rng).ravel()
    return [crop_pair(texts[i], window_words, crop_min_words, crop_largest_share, rng) for i in chosen]
