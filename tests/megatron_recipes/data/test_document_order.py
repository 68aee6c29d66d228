import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_recipes.data.document_order import DocumentOrder

CORPUS = "0123456789abcdef" * 4


@settings(max_examples=200)
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_every_document_once(count, seed, epoch):
    order = DocumentOrder(seed, CORPUS, epoch, count)
    assert sorted(order.documents(0, count).tolist()) == list(range(count))


@settings(max_examples=50)
@given(count=st.integers(1, 3000), data=st.data())
def test_any_part_is_computed_alone(count, data):
    order = DocumentOrder(5, CORPUS, 0, count)
    first = data.draw(st.integers(0, count))
    part = data.draw(st.integers(0, count - first))
    assert np.array_equal(order.documents(first, part), order.documents(0, count)[first : first + part])


@pytest.mark.parametrize(
    ("count", "expected"), [(2, "4cbbd8ca5215b8d1"), (32_301, "072a1d3565d98b76"), (10_000_000, "ee24ac887a848088")]
)
def test_the_order_that_cursors_of_earlier_runs_point_into(count, expected):
    order = DocumentOrder(5, CORPUS, 2, count)
    found = order.documents(0, min(count, 50_000))
    assert found.dtype == np.int64 and hashlib.sha256(found.tobytes()).hexdigest()[:16] == expected


def test_200_million_documents_without_a_list_of_them():
    order = DocumentOrder(1, CORPUS, 3, 200_000_000)
    seen = np.concatenate([order.documents(first, 4096) for first in (0, 99_999_999, 199_995_904)])
    assert len(np.unique(seen)) == len(seen) and seen.min() >= 0 and seen.max() < 200_000_000
    assert sum(table.nbytes for table in order.tables) < 400_000


@pytest.mark.parametrize("count", [3, 4])
def test_small_corpora_come_in_every_order_alike(count):
    seen = Counter(tuple(DocumentOrder(9, CORPUS, epoch, count).documents(0, count).tolist()) for epoch in range(2400))
    expected = 2400 / {3: 6, 4: 24}[count]
    assert len(seen) == {3: 6, 4: 24}[count]
    chi_square = sum((found - expected) ** 2 / expected for found in seen.values())
    assert chi_square < {6: 20.5, 24: 49.7}[len(seen)]  # 99.9% of random draws are below


def test_order_depends_on_seed_epoch_and_corpus():
    orders = [
        tuple(DocumentOrder(seed, identity, epoch, 50).documents(0, 50))
        for seed, identity, epoch in [(1, CORPUS, 0), (2, CORPUS, 0), (1, CORPUS, 1), (1, "f" + CORPUS[1:], 0), (1, CORPUS, 0)]
    ]
    assert orders[0] == orders[-1] and len(set(orders)) == 4


def test_neighbours_are_scattered():
    """Where documents end up is not related to where they were: no correlation of rank and document."""
    documents = DocumentOrder(7, CORPUS, 0, 10_000).documents(0, 10_000)
    assert abs(np.corrcoef(np.arange(10_000), documents)[0, 1]) < 0.05
    assert abs(np.corrcoef(documents[1:], documents[:-1])[0, 1]) < 0.05
