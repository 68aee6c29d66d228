from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mecellem.errors import UserError
from post_training.batches import plan_batches

OPTIONS = {"batch_size": 8, "steps": None, "epochs": 1.0, "group_by_length": True, "seed": 0}


def distinct(rows):
    return np.arange(rows * 2).reshape(rows, 2)


@given(
    rows=st.integers(8, 300),
    columns=st.integers(2, 4),
    texts=st.integers(1, 60),
    seed=st.integers(0, 99),
    group=st.booleans(),
    steps=st.none() | st.integers(1, 40),
)
def test_no_text_stands_twice_in_a_batch(rows, columns, texts, seed, group, steps):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, texts, (rows, columns))
    lengths = rng.random(rows)
    options = {**OPTIONS, "batch_size": 4, "steps": steps, "group_by_length": group, "seed": seed}
    try:
        plan = plan_batches(numbers, lengths, **options)
    except UserError as error:
        assert "make no batch of 4" in str(error)
        return
    for batch in plan:
        sets = [set(numbers[row].tolist()) for row in batch]
        assert sum(map(len, sets)) == len(set.union(*sets))
    if steps is not None:
        assert len(plan) == steps
    else:
        assert len(np.unique(plan)) == plan.size, "a pass takes a pair once"


def test_a_pass_takes_every_pair_that_fills_a_batch():
    plan = plan_batches(distinct(83), np.ones(83), **OPTIONS)
    assert plan.shape == (10, 8) and len(np.unique(plan)) == 80


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 5), (1.0, 10), (2.5, 25), (3.0, 30)])
def test_passes(epochs, steps):
    plan = plan_batches(distinct(80), np.ones(80), **{**OPTIONS, "epochs": epochs})
    assert len(plan) == steps
    if epochs == 3.0:
        assert np.bincount(plan.ravel()).tolist() == [3] * 80
        assert set(map(tuple, plan[:10].tolist())) != set(map(tuple, plan[10:20].tolist()))


def test_equal_anchors_never_meet():
    numbers = np.stack([np.arange(60) // 3, np.arange(60) + 100], axis=1)  # three positives an anchor
    plan = plan_batches(numbers, np.ones(60), **OPTIONS)
    assert len(plan) >= 6
    for batch in plan:
        assert len({row // 3 for row in batch.tolist()}) == 8


def padding(plan, lengths):
    """Share of the places in batches that no token takes."""
    of_batches = lengths[plan]
    return 1 - of_batches.sum() / (of_batches.max(axis=1) * plan.shape[1]).sum()


def test_grouping_leaves_little_padding_and_the_longest_batch_comes_first():
    lengths = np.minimum(np.random.default_rng(1).lognormal(4, 1, 4000), 256)
    grouped, plain = (
        plan_batches(distinct(4000), lengths, **{**OPTIONS, "batch_size": 16, "group_by_length": group})
        for group in (True, False)
    )
    assert padding(grouped, lengths) < 0.15 < 0.45 < padding(plain, lengths)
    means = lengths[grouped].mean(axis=1)
    assert lengths[grouped[0]].max() == lengths[grouped].max()
    assert abs(np.corrcoef(np.arange(1, len(means)), means[1:])[0, 1]) < 0.2, "short and long batches are mixed"


def test_same_seed_same_plan_other_seed_another():
    first, again, other = (plan_batches(distinct(80), np.ones(80), **{**OPTIONS, "seed": seed}) for seed in (3, 3, 4))
    assert (first == again).all() and not (first == other).all()
