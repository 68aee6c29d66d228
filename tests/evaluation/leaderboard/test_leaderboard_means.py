"""Means as mteb has them, paired comparisons, and how both are shown."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from evaluation.encoders import EncoderFacts
from evaluation.leaderboard.means import MEAN_TASK, MEAN_TYPE, compare, group_means, means
from evaluation.leaderboard.results import Leaderboard, SystemResults, TaskResult
from evaluation.leaderboard.tables import board_csv, comparison_lines, mean_lines, print_board, ranked, score
from evaluation.tasks.facts import TaskFacts
from evaluation.tasks.hub_tasks import HUB_GROUPS
from mecellem.errors import UserError

TASKS = [
    TaskFacts(
        name=name, category=category, revision="1", main_metric="m", description="", splits=("test",), subset="default",
        languages=(), items=None, documents=None, source="", licence="",
    )
    for name, category in (("A", "retrieval"), ("B", "retrieval"), ("C", "bitext"))
]  # fmt: skip


def result(task: str, values: dict[str, float] | None, revision: str = "1", metric: str = "m") -> TaskResult:
    return TaskResult(
        task=task, category="retrieval", revision=revision, main_metric="m", metrics={}, interval=None, items=3, texts=3,
        main_score=float(np.mean(list(values.values()))) if values else 0.5, per_item_metric=metric if values else None,
        per_item={"default": values} if values else None, empty=0, truncated=0.25, tokens_cut=1, seconds=1.0, hardware="",
    )  # fmt: skip


def test_means_are_those_of_mteb():
    import polars as pl
    from mteb.benchmarks._create_table import _skipna_false_mean  # its rule: no mean where a score is missing

    scores = {"x": {"A": 0.2, "B": 0.4, "C": 0.9}, "y": {"A": 0.5, "B": 0.1}}
    found = {mean.name: mean for mean in means(TASKS, scores)}
    assert found["retrieval"].values == pytest.approx({"x": 0.3, "y": 0.3})
    assert found["bitext"].values == {"x": 0.9, "y": None} and found["bitext"].missing == {"y": ["C"]}
    assert found[MEAN_TASK].values["x"] == pytest.approx(0.5) and found[MEAN_TYPE].values["x"] == pytest.approx(0.6)
    assert found[MEAN_TASK].values["y"] is None and found[MEAN_TYPE].values["y"] is None
    frame = pl.DataFrame({"A": [0.2, 0.5], "B": [0.4, 0.1], "C": [0.9, None]})
    theirs = frame.select(_skipna_false_mean(["A", "B", "C"]).alias("mean"))["mean"].to_list()
    assert theirs[0] == pytest.approx(found[MEAN_TASK].values["x"]) and theirs[1] is None


def board_of(scores: dict[str, dict[str, float]], names: tuple[str, ...] = ()) -> Leaderboard:
    parts = {"means": means(TASKS, scores), "group_means": group_means(names, scores)}
    return Leaderboard(tasks=TASKS, left_out=[], systems=[], settings={}, versions={}, **parts)


def test_lists_of_tasks_and_what_is_missing_are_said():
    lines = mean_lines(board_of({"x": {"A": 0.2, "B": 0.4, "C": 0.9}, "y": {"A": 0.5}}))
    assert "retrieval: mean over A, B" in lines and "bitext: mean over C" in lines
    assert "mean (task): mean over all 3 tasks; mean (task type): mean of retrieval, bitext" in lines
    assert any(line.startswith("y has not done B, C: no mean") for line in lines)


def test_published_means_are_over_exactly_the_tasks_of_their_authors():
    legal = [task.name for task in HUB_GROUPS["mecellem-legal"]]
    scores = {"x": {**dict.fromkeys(legal, 0.5), legal[0]: 0.8, "A": 0.0}, "y": dict.fromkeys(legal[1:], 0.5)}
    (found,) = group_means(("corpus", "mecellem-legal", "A"), scores)
    assert found.tasks == legal and found.values == {"x": pytest.approx(0.6), "y": None}
    assert any(f"not all systems have {legal[0]}" in line for line in mean_lines(board_of(scores, ("mecellem-legal",))))


def test_paired_comparison_sees_a_small_difference_that_is_always_there():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.8, 200)
    ours = {f"q{number}": value + 0.02 for number, value in enumerate(base)}
    theirs = {f"q{number}": value for number, value in enumerate(base)}
    found = compare({"A": result("A", ours)}, {"A": result("A", dict(reversed(theirs.items())))}, ("new", "old"))
    assert found.real and found.difference == pytest.approx(0.02) and found.interval == pytest.approx((0.02, 0.02))
    noise = {name: value + rng.normal(0, 0.3) for name, value in theirs.items()}
    lost = compare({"A": result("A", noise)}, {"A": result("A", theirs)})
    assert not lost.real and lost.interval[0] < lost.difference < lost.interval[1]
    assert compare({"A": result("A", theirs)}, {"A": result("A", ours)}).difference == pytest.approx(-0.02)


def test_comparison_weighs_tasks_alike():
    a = {"A": result("A", {"1": 1.0, "2": 1.0}), "B": result("B", {str(number): 0.5 for number in range(10)})}
    b = {"A": result("A", {"1": 0.0, "2": 0.0}), "B": result("B", {str(number): 0.5 for number in range(10)})}
    assert compare(a, b).difference == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"B": result("B", {"1": 1.0, "2": 0.0})}, "do not both have A, B"),
        ({}, "do not both have A"),
        ({"A": result("A", {"1": 1.0, "2": 0.0}, revision="2")}, "A was another version"),
        ({"A": result("A", {"1": 1.0, "3": 0.0})}, "different items"),
        ({"A": result("A", None)}, "has no score of single items"),
        ({"A": result("A", {"1": 1.0, "2": 0.0}, metric="n")}, "has no score of single items"),
    ],
)
def test_comparison_of_different_things_is_refused(other: dict[str, TaskResult], sentence: str):
    with pytest.raises(UserError, match=sentence):
        compare({"A": result("A", {"1": 0.5, "2": 0.5})}, other)


def test_comparison_needs_two_items():
    with pytest.raises(UserError, match="fewer than two items"):
        compare({"A": result("A", {"1": 0.5})}, {"A": result("A", {"1": 0.2})})


@pytest.fixture
def board() -> Leaderboard:
    facts = EncoderFacts(
        name="x", spec="x", kind="hugging-face", sha256="0", parameters=117_500_000, embedding_parameters=96_000_000,
        dimensions=384, max_seq_length=512, pooling="mean", pooling_assumed=False, query_prompt="", document_prompt="",
        text_prompt="", dtype="fp32",
    )  # fmt: skip
    found = {
        "x": {name: result(name, {"1": 0.2, "2": 0.4}) for name in "ABC"},
        "bm25": {name: result(name, {"1": 0.1, "2": 0.3}) for name in "AB"},
    }
    against = compare({name: found["x"][name] for name in "AB"}, found["bm25"], ("x", "bm25"))
    systems = [
        SystemResults(name="bm25", spec="bm25", kind="bm25", sha256="1", facts=None, tasks=found["bm25"], against_bm25=None),
        SystemResults(name="x", spec="x", kind="hugging-face", sha256="0", facts=facts, tasks=found["x"], against_bm25=against),
    ]
    scores = {system.name: {name: item.main_score for name, item in system.tasks.items()} for system in systems}
    return board_of(scores).model_copy(update={"systems": systems})


def test_tables_show_missing_tasks_as_such(board: Leaderboard):
    from rich.console import Console

    out = Console(file=io.StringIO(), width=90, record=True)
    print_board(out, board)
    text = out.export_text()
    assert [system.name for system in ranked(board)] == ["x", "bm25"]
    rows = {cells[0]: cells[1:] for line in text.splitlines() if len(cells := [part.strip() for part in line.split("│")[1:-1]])}
    assert rows["A"] == ["m", ".300", ".200"] and rows["C"] == ["m", ".300", "–"]
    assert rows["mean of retrieval"] == ["", ".300", ".200"] and "mean of bitext" not in rows
    assert rows["mean (task)"] == rows["mean (task type)"] == ["", ".300", "–"]
    assert rows["parameters"] == ["", "117.5M", "–"] and rows["dimensions"] == ["", "384", "–"]
    assert "bm25 has not done C" in text
    assert comparison_lines(board) == [
        "x is above bm25 in m over A, B: +0.100 (+0.100 to +0.100, paired bootstrap over queries)"
    ]


def test_csv_has_full_precision_and_leaves_missing_cells_empty(board: Leaderboard):
    rows = list(csv.DictReader(io.StringIO(board_csv(board))))
    assert [row["system"] for row in rows] == ["x", "bm25"]
    assert float(rows[0]["mean (task)"]) == pytest.approx(0.3) and rows[1]["mean (task)"] == ""
    assert rows[1]["C"] == "" and rows[1]["retrieval"] == rows[1]["A"] and rows[0]["A truncated"] == "0.25"


def test_plot_is_drawn_the_same_twice(board: Leaderboard):
    from evaluation.leaderboard.plot import draw

    assert draw(board) == draw(board) and draw(board).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "shown"), [(0.1234, ".123"), (-0.05, "-.050"), (1.0, "1.000"), (0.9996, "1.000"), (None, "–")]
)
def test_scores_as_they_are_printed(value: float | None, shown: str):
    assert score(value) == shown
