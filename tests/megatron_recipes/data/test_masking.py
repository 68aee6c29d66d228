import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpora import CLS, MASK, PAD, SEP, UNK, special_tokens

from megatron_recipes.data.masking import IGNORE_INDEX, Masker

VOCAB = 1000
SPECIAL = (PAD, UNK, CLS, SEP, MASK)


def text(rows, columns, seed=0, share_of_special=0.05):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, VOCAB, (rows, columns))
    tokens[rng.random(tokens.shape) < share_of_special] = SEP
    return tokens


@pytest.mark.parametrize("probability", [0.15, 0.30])
def test_ratios(probability):
    """Within 5 standard deviations of the binomial: fails by chance once in millions, and seeds are fixed anyway."""
    tokens = text(1000, 512)
    inputs, labels = Masker(special_tokens(VOCAB), probability, seed=7)(tokens, 0, np.arange(1000))

    def close(count, total, share):
        return abs(count - total * share) < 5 * np.sqrt(total * share * (1 - share))

    chosen = labels != IGNORE_INDEX
    ordinary = tokens >= 5
    total = int(chosen.sum())
    assert close(total, int(ordinary.sum()), probability)
    masked, kept = inputs[chosen] == MASK, inputs[chosen] == tokens[chosen]
    drawn_as_itself = 1 / (VOCAB - 5)
    assert close(int(masked.sum()), total, 0.8)
    assert close(int(kept.sum()), total, 0.1 + 0.1 * drawn_as_itself)
    assert close(int((~masked & ~kept).sum()), total, 0.1 * (1 - drawn_as_itself))
    assert np.array_equal(labels[chosen], tokens[chosen])
    assert np.array_equal(inputs[~chosen], tokens[~chosen])


def test_replacements_are_uniform_over_ordinary_tokens():
    tokens = np.full((4000, 512), 5)
    inputs, labels = Masker(special_tokens(25), 0.9, seed=1)(tokens, 0, np.arange(4000))
    drawn = inputs[(labels != IGNORE_INDEX) & (inputs != MASK) & (inputs != 5)]
    counts = np.bincount(drawn, minlength=25)
    assert counts[:6].sum() == 0  # neither a special token nor, by the filter above, 5 itself
    expected = len(drawn) / 19
    assert ((counts[6:] - expected) ** 2 / expected).sum() < 60  # chi-squared, 18 degrees of freedom: p < 1e-5


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 100),
    columns=st.integers(1, 50),
    probability=st.floats(0.001, 0.999),
)
def test_special_tokens_are_left_alone_and_each_row_has_a_mask(seed, epoch, columns, probability):
    tokens = text(16, columns, seed % 1000, share_of_special=0.7)
    inputs, labels = Masker(special_tokens(VOCAB), probability, seed)(tokens, epoch, np.arange(16))
    is_special = np.isin(tokens, SPECIAL)
    assert (labels[is_special] == IGNORE_INDEX).all()
    assert np.array_equal(inputs[is_special], tokens[is_special])
    assert np.array_equal((labels != IGNORE_INDEX).any(axis=1), (~is_special).any(axis=1))
    assert set(np.unique(inputs[inputs != tokens])) <= {MASK, *range(5, VOCAB)}


@settings(max_examples=100, deadline=None)
@given(samples=st.lists(st.integers(0, 2**40), min_size=1, max_size=8), columns=st.integers(1, 33), epoch=st.integers(0, 9))
def test_a_samples_masks_depend_on_its_number_alone(samples, columns, epoch):
    masker, tokens = Masker(special_tokens(VOCAB), 0.3, seed=3), text(len(samples), columns)
    inputs, labels = masker(tokens, epoch, np.array(samples))
    for row, sample in enumerate(samples):
        alone_inputs, alone_labels = masker(tokens[row : row + 1], epoch, np.array([sample]))
        assert np.array_equal(alone_inputs[0], inputs[row]) and np.array_equal(alone_labels[0], labels[row])


def test_consecutive_samples_share_no_random_words():
    words = Masker(special_tokens(VOCAB), 0.3, seed=3).words(0, np.arange(500), 30)
    assert len(np.unique(words)) == words.size


def test_seed_epoch_and_sample_all_matter():
    tokens = np.repeat(text(1, 512), 2, axis=0)
    _, labels = Masker(special_tokens(VOCAB), 0.3, seed=1)(tokens, 0, np.array([0, 1]))
    assert not np.array_equal(labels[0], labels[1])
    for seed, epoch in ((2, 0), (1, 1)):
        _, other = Masker(special_tokens(VOCAB), 0.3, seed)(tokens, epoch, np.array([0, 1]))
        assert not np.array_equal(labels, other)


def test_masks_stay_the_same_in_every_version():
    """A resumed run must see the masks of the run it continues: this pins them."""
    inputs, labels = Masker(special_tokens(VOCAB), 0.3, seed=1234)(np.arange(5, 69)[None], 2, np.array([17]))
    assert np.flatnonzero(labels[0] != IGNORE_INDEX).tolist() == [1, 4, 6, 7, 19, 20, 23, 31, 37, 42, 48, 61]
    changed = np.flatnonzero(inputs[0] != np.arange(5, 69))
    assert inputs[0][changed].tolist() == [4, 4, 4, 4, 4, 534, 4, 4, 4, 323, 4, 4]
