import hashlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_recipes.data.blend import Blend

WEIGHTS = st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=40).map(lambda raw: [x / sum(raw) for x in raw])
ROUNDING = 1e-4  # weights are integers of 2^-30: m x 2^-30 for the m used here


def prefix_counts(blend, total):
    drawn = blend.sources(0, total)
    counts = np.zeros((total + 1, len(blend.weights)), dtype=np.int64)
    counts[1:] = np.cumsum(drawn[:, None] == np.arange(len(blend.weights)), axis=0)
    return counts


@settings(max_examples=150)
@given(weights=WEIGHTS)
@example([0.5 - 1e-4, 0.5 - 1e-4, 2e-4])
@example([0.9, 0.09, 0.009, 0.0009, 0.0001])
@example([0.01] * 100)
def test_no_source_is_ever_off_by_more_than_its_bound_which_is_below_two(weights):
    blend = Blend([x / sum(weights) for x in weights])
    counts = prefix_counts(blend, 1500)
    error = np.abs(counts - np.arange(1501)[:, None] * blend.weights).max(axis=0)
    assert (error <= blend.bounds + ROUNDING).all()
    assert blend.bounds.max() < 2.0


@settings(max_examples=60)
@given(weights=WEIGHTS, window=st.integers(1, 1000))
def test_every_window_keeps_the_mixture(weights, window):
    blend = Blend(weights)
    counts = prefix_counts(blend, 1500)
    shares = (counts[window:] - counts[:-window]) / window
    worst = np.abs(shares - blend.weights).max()
    assert worst <= blend.window_error(window) + ROUNDING
    assert blend.measured_window_error(1500, window) == pytest.approx(worst)


def test_a_window_of_4000_sequences_is_within_a_thousandth_for_any_weights():
    """Below 2 sequences at either end, so below 4 in a window: the promise for every 1% of a stage of 400,000 sequences."""
    rng = np.random.default_rng(0)
    for sources in (2, 5, 100):
        for concentration in (0.1, 1.0, 10.0):
            weights = rng.dirichlet(np.full(sources, concentration)) + 1e-6
            blend = Blend((weights / weights.sum()).tolist())
            assert blend.window_error(4000) < 1e-3
            assert blend.measured_window_error(40_000, 4000) < 1e-3


@settings(max_examples=100)
@given(weights=WEIGHTS, first=st.integers(0, 2**31 - 2000), count=st.integers(0, 300))
def test_any_part_is_drawn_alone(weights, first, count):
    """Counting jumps to any place, and agrees with going through the sequences from there."""
    blend = Blend(weights)
    drawn = blend.sources(first, count)
    expected = blend.counts(first + count) - blend.counts(first)
    assert np.bincount(drawn, minlength=len(weights)).tolist() == expected.tolist()
    middle = count // 2
    assert np.array_equal(drawn[middle:], blend.sources(first + middle, count - middle))


@pytest.mark.parametrize(("first", "expected"), [(0, "9813aadc3b821408"), (2**31 - 5000, "419a4226e8a82de5")])
def test_the_order_that_cursors_of_earlier_runs_go_on_with(first, expected):
    weights = np.arange(1, 101) ** 2.0
    drawn = Blend((weights / weights.sum()).tolist()).sources(first, 5000)
    assert drawn.dtype == np.int64 and hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == expected


def test_two_halves_alternate_and_one_source_is_alone():
    assert sorted(Blend([0.5, 0.5]).sources(0, 2).tolist()) == [0, 1]
    assert Blend([1.0]).sources(0, 5).tolist() == [0] * 5
    assert Blend([1.0]).window_error(10) == 0.0


def test_long_stages_do_not_drift():
    weights = [0.611, 0.25, 0.1, 0.039]
    total = 2**31 - 1
    assert np.abs(Blend(weights).counts(total) - total * np.array(weights)).max() < 5  # 2^31 x 2^-30 and the bound
