"""From which budget on pre-training is worth anything: said only of a difference that stays."""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mecellem.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import checkpoint_selection  # noqa: E402
from checkpoint_selection import Budget, shown, smallest  # noqa: E402


@pytest.mark.parametrize(
    ("leads", "sentence"),
    [
        ((0, 1, 1), "above random weights from 2.0M tokens on"),
        ((1, 0, 0), "above random weights at 1.0M tokens only, and not at the last"),
        ((1, 0, 1), "above random weights from 3.0M tokens on"),
        ((0, -1, -1), "never above random weights, below them at 2 of 3 checkpoints"),
        ((0, 0, 0), "never above random weights"),
    ],
)
def test_above_from_a_budget_on_means_at_all_later_ones(leads, sentence, monkeypatch):
    rows = [SimpleNamespace(step=number, tokens=number * 1_000_000) for number in (1, 2, 3)]
    found = {row.step: SimpleNamespace(real=lead != 0, difference=0.1 * lead) for row, lead in zip(rows, leads, strict=True)}
    monkeypatch.setattr(checkpoint_selection, "against_random", lambda _: found)
    assert smallest({Budget(60, 5e-4): SimpleNamespace(checkpoints=rows)}) == [f"- 60 steps, lr 0.0005: {sentence}"]


def test_eight_checkpoints_are_scored_closer_together_at_the_beginning():
    steps = shown(24_000_000)
    gaps = [after - before for before, after in itertools.pairwise(steps)]
    assert len(steps) == 8 and steps[0] == 245 and steps[-1] == 23 * 245 and gaps == sorted(gaps)
    assert [step // 245 for step in shown(12_000_000)] == [1, 2, 3, 4, 5, 7, 9, 11]
    with pytest.raises(UserError, match="--tokens must be at least"):
        shown(7_000_000)
