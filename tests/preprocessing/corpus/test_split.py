from collections import Counter

import pytest

from preprocessing.corpus.split import SPLITS, split_of


@pytest.mark.parametrize(("source", "shares"), [("ataturk", (0.70, 0.05, 0.25)), ("kenet", (0.80, 0.05, 0.15))])
def test_the_shares_are_as_said(source, shares):
    counts = Counter(split_of(f"{source}/{i}") for i in range(20_000))
    assert [counts[split] / 20_000 for split in SPLITS] == pytest.approx(shares, abs=0.01)


def test_the_split_of_a_name_never_changes():
    names = ["ataturk/atam-c1-1906-001", "kenet/TUR10-0000030", "treebank/Tarım", "libreoffice/shared/01/01010000"]
    assert [split_of(name) for name in names] == ["test", "train", "validation", "test"]
