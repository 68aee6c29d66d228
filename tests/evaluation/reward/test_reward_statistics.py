"""Paired tests against values known by other means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.reward.statistics import compare, holm, length_control, permutation_p, wilcoxon_p


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, None, 0.5]) == [pytest.approx(0.04), None, pytest.approx(0.5)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_p_and_bonferroni(values):
    found = holm(values)
    for p, corrected in zip(values, found, strict=True):
        assert min(1, p) <= corrected <= min(1, len(values) * p) + 1e-12
    order = np.argsort(values, kind="stable")
    assert all(found[a] <= found[b] + 1e-12 for a, b in itertools.pairwise(order))


def test_few_pairs_are_permuted_exactly():
    """Of the 2^5 signs, two give a mean as far from 0: all plus, all minus."""
    differences = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert permutation_p(differences, 0) == pytest.approx(2 / 32)
    assert wilcoxon_p(differences) == pytest.approx(2 / 32)
    assert permutation_p(np.zeros(5), 0) == wilcoxon_p(np.zeros(5)) == 1
    assert permutation_p(np.ones(1), 0) is None and wilcoxon_p(np.ones(1)) is None


def test_a_difference_that_is_length_alone_vanishes_at_equal_length():
    rng = np.random.default_rng(0)
    ratios = rng.normal(0.5, 0.5, 300)
    differences = 2 * ratios + rng.normal(0, 0.1, 300)
    found = compare({"a": np.zeros(300)}, {"a": differences}, ratios, 0)[0]
    assert found.real and found.difference == pytest.approx(1, abs=0.1)
    control = found.length_control
    assert control.difference == pytest.approx(0, abs=0.03) and control.interval[0] < 0 < control.interval[1]
    assert control.slope == pytest.approx(2, abs=0.05) and control.p > 0.05 and control.inside
    shifted = length_control(differences + 0.5, ratios, 0)
    assert shifted.difference == pytest.approx(control.difference + 0.5) and shifted.p < 1e-6
    assert shifted.interval == pytest.approx([value + 0.5 for value in control.interval])


def test_lengths_that_tell_nothing():
    differences = np.array([0.1, 0.3, 0.2, 0.5])
    same = length_control(differences, np.zeros(4), 0)
    assert same.difference == pytest.approx(differences.mean()) and same.slope is None and same.inside
    assert length_control(differences, np.full(4, 0.7), 0) is None
    assert length_control(differences[:2], np.array([0.0, 1.0]), 0) is None
    assert not length_control(differences, np.array([0.2, 0.4, 0.3, 0.9]), 0).inside


def test_axes_are_corrected_together():
    rng = np.random.default_rng(1)
    noise = {name: rng.normal(0, 1, 60) for name in "abcd"}
    later = {name: values + rng.normal(0, 1, 60) for name, values in noise.items()}
    later["a"] = noise["a"] + rng.uniform(0.1, 0.9, 60)
    found = {row.axis: row for row in compare(noise, later, rng.normal(0, 1, 60), 0)}
    first, control = found["a"], found["a"].length_control
    assert first.real and first.wins == 1 and first.p_permutation_holm == pytest.approx(4 * first.p_permutation)
    assert first.base + first.difference == pytest.approx(first.continued)
    assert control.real and control.p_holm == pytest.approx(4 * control.p) and 0 < control.p < 0.01
    assert not any(found[name].real or found[name].length_control.real for name in "bcd")
    equal = compare(noise, noise, np.zeros(60), 0)[0]
    assert equal.ties == 1 and equal.p_permutation_holm == 1 and not equal.real
