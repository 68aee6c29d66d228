"""Definitions on the paper's rows by hand, properties of the formulas, and Pareto fronts against brute force."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.efficiency.boards import make_board
from evaluation.efficiency.definitions import Definition, read_definitions
from evaluation.efficiency.figures import Figure, Row
from evaluation.efficiency.scores import front, score_rows
from evaluation.efficiency.table import DEFAULT, read_table


def row(name: str, **values: float) -> Row:
    return Row(name=name, figures={key: Figure(value=value, origin="test") for key, value in values.items()})


def definition(formula: str, quality: dict, cost: dict | None = None) -> Definition:
    return Definition(name="test", formula=formula, quality=quality, cost=cost or {}, origin="test")


def scores(rows: list[Row], formula: str, quality: dict, cost: dict | None = None) -> dict[str, float | None]:
    return {item.name: item.score for item in score_rows(definition(formula, quality, cost), rows).systems}


@pytest.fixture(scope="module")
def paper():
    """The published rows under the definitions of the package."""
    return make_board(read_table(DEFAULT), [], read_definitions(), "none")


def test_the_papers_rows_by_hand(paper):
    by_name = {item.name: {system.name: system for system in item.systems} for item in paper.scores}
    gemma, bge, base = "embeddinggemma-300m", "bge-m3", "Mursit-Base-TR-Retrieval"
    fitted = by_name["2 retrieval + legal"]
    assert (
        fitted[bge].score == pytest.approx(100 * (2 * 54.42 + 51.16) / (2 * 55.06 + 50.63)) == pytest.approx(99.53, abs=0.005)
    )
    assert fitted[gemma].rank == 1 and fitted[bge].rank == 2
    assert by_name["mean and legal"][bge].score == pytest.approx(98.26, abs=0.005)
    assert by_name["legal"][gemma].score == pytest.approx(100 * 50.63 / 51.16)
    assert by_name["mean"][base].score == pytest.approx(100 * 55.86 / 65.42)
    ratio = (55.86 / 65.42) ** 3 * (47.52 / 51.16) ** 3  # the smallest of the complete rows
    assert by_name["per parameter"][base].score == pytest.approx(100 * ratio ** (1 / 7))
    assert by_name["per parameter"][base].rank == 1  # where quality alone ranks it fourth
    assert by_name["mean"][base].rank == 4
    lost = 2 * math.log2(567 / 155) + 2 * math.log2(1024 / 768)
    assert by_name["size penalty"][bge].score == pytest.approx(100 * (62.87 + 51.16) / (65.42 + 50.63) - lost)


def test_what_is_not_published_is_missing_and_not_zero(paper):
    for item in paper.scores:
        for system in item.systems:
            assert (system.score is None) == bool(system.missing) == (system.rank is None)
    fitted = next(item for item in paper.scores if item.name == "2 retrieval + legal")
    missing = {system.name: system.missing for system in fitted.systems if system.missing}
    assert missing["Mursit-Base-TR-Retrieval"] == ["retrieval"] and missing["bge-m3-stsb"] == ["retrieval", "legal"]
    deployment = next(item for item in paper.scores if item.name == "deployment")
    assert all(system.score is None for system in deployment.systems) and deployment.best == {}
    assert not any(figure.value == 0 for item in paper.rows for figure in item.figures.values())


def test_a_row_without_an_input_changes_no_other_score():
    rows = [row("a", mean=50, legal=40, parameters=1e6), row("b", mean=60, legal=30, parameters=4e6)]
    quality, cost = {"mean": 1, "legal": 1}, {"parameters": 1}
    for formula, costs in (("ratio", None), ("geometric", cost), ("penalty", cost)):
        without = scores(rows, formula, quality, costs)
        found = scores([*rows, row("c", mean=99, parameters=1)], formula, quality, costs)
        assert found == without | {"c": None}


def test_costs_of_which_more_is_better():
    rows = [row("slow", mean=50, documents_per_second=10), row("fast", mean=50, documents_per_second=40)]
    found = scores(rows, "penalty", {"mean": 1}, {"documents_per_second": 3})
    assert found == {"slow": pytest.approx(94), "fast": 100}
    assert scores(rows, "geometric", {"mean": 1}, {"documents_per_second": 1})["slow"] == pytest.approx(50)


def test_a_cost_of_nothing_has_no_ratio():
    """A table of static vectors has no parameters beside its embedding."""
    rows = [row("static", mean=30, backbone_parameters=0), row("model", mean=50, backbone_parameters=5)]
    found = score_rows(definition("geometric", {"mean": 1}, {"backbone_parameters": 1}), rows).systems
    assert found[0].score is None and found[0].missing == ["backbone_parameters is 0"] and found[1].score == 100
    assert [point.name for point in front(rows, "mean", "backbone_parameters").points] == ["static", "model"]


def test_qualities_at_and_below_zero():
    rows = [row("a", mean=-5, parameters=1), row("b", mean=0, parameters=2), row("c", mean=10, parameters=4)]
    assert scores(rows, "geometric", {"mean": 1}, {"parameters": 1}) == {"a": 0, "b": 0, "c": pytest.approx(50)}
    assert set(scores(rows[:2], "ratio", {"mean": 1}).values()) == {0}


VALUES = st.floats(0.1, 100)
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=6)


@given(ROWS, st.floats(0.01, 100))
def test_units_do_not_matter(values, unit):
    rows, scaled = [
        [row(str(number), mean=q, legal=r, memory=c * factor) for number, (q, r, c) in enumerate(values)]
        for factor in (1, unit)
    ]
    for formula in ("geometric", "penalty"):
        first, second = (scores(part, formula, {"mean": 2, "legal": 1}, {"memory": 1.5}) for part in (rows, scaled))
        assert list(first.values()) == pytest.approx(list(second.values()))
        assert max(first.values()) <= 100 + 1e-9


@given(ROWS)
def test_the_front_is_what_nothing_beats(values):
    rows = [row(str(number), mean=round(q), memory=round(c)) for number, (q, _, c) in enumerate(values)]
    found = front(rows, "mean", "memory").points
    assert sorted(point.name for point in found) == sorted(item.name for item in rows)
    for point in found:
        better = [
            other for other in found
            if (other.quality, -other.cost) != (point.quality, -point.cost)
            and other.quality >= point.quality and other.cost <= point.cost
        ]  # fmt: skip
        assert point.on_front == (not better)
    assert any(point.on_front for point in found)
    costs = [point.cost for point in found]
    assert costs == sorted(costs)


def test_equal_scores_share_a_rank():
    rows = [row("a", mean=50), row("b", mean=50), row("c", mean=40)]
    assert [item.rank for item in score_rows(definition("ratio", {"mean": 1}), rows).systems] == [1, 1, 3]
