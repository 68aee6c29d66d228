from __future__ import annotations

import numpy as np
import pytest

from evaluation.bootstrap import mean_interval, redrawn_means


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        low, high = mean_interval([rng.random(60)])
        covered += low <= 0.5 <= high
    assert 86 <= covered <= 100


def test_interval_of_a_paired_difference():
    rng = np.random.default_rng(1)
    noise = rng.random(200)
    low, high = mean_interval([noise + 0.1 - noise, noise - noise])
    assert low == pytest.approx(0.05) and high == pytest.approx(0.05), "tasks weigh the same; no noise, no width"
    low, high = mean_interval([rng.normal(0, 1, 50)], 0.999)
    narrow_low, narrow_high = mean_interval([rng.normal(0, 1, 50)], 0.5)
    assert high - low > narrow_high - narrow_low


def test_interval_is_deterministic():
    values = np.random.default_rng(2).random(40)
    assert mean_interval([values]) == mean_interval([values])


def test_redrawn_means_have_the_bootstraps_own_spread_and_pair_systems():
    values = np.random.default_rng(3).random(60)
    found = redrawn_means([np.stack([values, values + 0.1])], 2000)
    assert found.shape == (2000, 2) and np.allclose(found[:, 1] - found[:, 0], 0.1)
    low, high = mean_interval([values])
    assert np.quantile(found[:, 0], [0.025, 0.975]) == pytest.approx([low, high], abs=0.01)
    assert np.array_equal(found, redrawn_means([np.stack([values, values + 0.1])], 2000))
