"""The command: published rows alone, measured costs joined to rows by name, and a leaderboard's qualities."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from browser_pages import check_page
from encoder_models import POSITIONS, write_model2vec, write_transformer

from evaluation.efficiency.boards import make_board
from evaluation.efficiency.command import main
from evaluation.efficiency.definitions import read_definitions
from evaluation.efficiency.leaderboard import read_leaderboard
from evaluation.efficiency.results import EfficiencyResults
from evaluation.encoders.base import EncoderFacts
from evaluation.leaderboard.means import means
from evaluation.leaderboard.results import Leaderboard, SystemResults, TaskResult
from evaluation.report import main as report
from evaluation.results import write_record
from evaluation.tasks.facts import TaskFacts
from evaluation.tasks.hub_tasks import MECELLEM_LEGAL
from mecellem.errors import UserError

pytestmark = pytest.mark.timeout(300)


def run(out: Path, *words: str | Path) -> EfficiencyResults:
    main([*map(str, words), "--out", str(out), "--device", "cpu"])
    return EfficiencyResults.model_validate_json(out.read_bytes())


def test_published_rows_alone(tmp_path, capsys):
    results = run(tmp_path / "results.json")
    (board,) = results.boards
    assert len(board.rows) == 7 and not results.measured
    fitted = board.scores[3].systems[1]
    assert fitted.inputs == {"retrieval": 54.42, "legal": 51.16} and fitted.score == pytest.approx(99.53, abs=0.005)
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    points = list(csv.DictReader((tmp_path / "results.csv").open()))
    on_front = {point["system"] for point in points if point["cost"] == "parameters" and point["on_front"] == "1"}
    assert on_front == {"TabiBERT", "Mursit-Base-TR-Retrieval", "embeddinggemma-300m"}
    assert {point["cost"] for point in points} == {"parameters", "backbone_parameters", "dimensions", "index_bytes"}
    printed = capsys.readouterr().out
    for words in ("99.53 #2", "65.42", "unpublished, fitted to one equation", "missing of bge-m3-stsb", "99.54", "92.36"):
        assert words in printed


def test_the_page_has_the_published_figures(tmp_path):
    results = run(tmp_path / "results.json")
    assert report([str(tmp_path / "results.json"), "--out", str(tmp_path / "page.html")]) == 0
    check_page(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for row in results.boards[0].rows:
        assert row.name in page
    assert "99.53 #2" in page and "unpublished, fitted to one equation" in page


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "metinler.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"{number}. madde yürürlüktedir."}) for number in range(12)))
    return path


SHORT = ("--documents", "8", "--queries", "4", "--warm-up", "1", "--passes", "1")


def test_measured_costs(tmp_path, texts, monkeypatch, capsys):
    """Of real encoders; those with a row of their name join it, others are told."""
    model, static = f"TabiBERT={write_transformer(tmp_path / 'model')}", f"vectors={write_model2vec(tmp_path / 'static')}"
    words = (model, static, "--texts", texts, *SHORT, "--index-precision", "int8", "--cache", tmp_path / "cache")
    results = run(tmp_path / "results.json", *words)
    tabi, vectors = results.measured
    assert [tabi.name, vectors.name] == ["TabiBERT", "vectors"]
    assert tabi.parameters > tabi.embedding_parameters == 400 * 32 and tabi.max_seq_length == POSITIONS
    assert vectors.parameters == vectors.embedding_parameters == 400 * 16
    assert vectors.query_p50 < tabi.query_p50
    row = next(row for row in results.boards[0].rows if row.name == "TabiBERT")
    assert row.figures["mean"].value == 37.77 and row.figures["parameters"].origin == "counted"
    assert row.value("dimensions") == 32 and row.value("index_bytes") == 32e6
    assert row.figures["query_p95"].origin.startswith("measured: ") and row.value("query_p95") == tabi.query_p95
    assert (tmp_path / "results.png").exists()
    printed = capsys.readouterr().out
    assert "measured costs" in printed and "vectors: no table and no leaderboard has a row of this name" in printed

    monkeypatch.setattr("evaluation.efficiency.cost.measure_alone", lambda *_: pytest.fail("measured again"))
    assert run(tmp_path / "again.json", *words) == results
    alone = run(tmp_path / "alone.json", *words, "--table")
    assert not alone.boards and alone.measured == results.measured and not (tmp_path / "alone.png").exists()
    assert "no plot: no two systems" in capsys.readouterr().out


def facts(name: str, parameters: int) -> EncoderFacts:
    return EncoderFacts(
        name=name, spec=name, kind="hugging-face", sha256="0", parameters=parameters, embedding_parameters=100, dimensions=16,
        max_seq_length=64, pooling="mean", pooling_assumed=False, query_prompt="", document_prompt="", text_prompt="",
        dtype="fp32",
    )  # fmt: skip


def task_result(task: TaskFacts, score: float) -> TaskResult:
    return TaskResult(
        task=task.name, category=task.category, revision="1", main_metric="ndcg_at_10", main_score=score, metrics={},
        per_item_metric=None, per_item=None, interval=None, items=10, texts=20, empty=0, truncated=0, tokens_cut=0, seconds=1,
        hardware="",
    )  # fmt: skip


def write_leaderboard(path: Path, scores: dict[str, dict[str, float]]) -> Path:
    kinds = {name: "sts" if name == "STSb" else "retrieval" for name in scores["model"]}
    tasks = [
        TaskFacts(
            name=name, description="", category=kind, main_metric="m", revision="1", splits=("test",), subset="default",
            languages=("tur",), items=10, documents=None, source="", licence="",
        )
        for name, kind in kinds.items()
    ]  # fmt: skip
    systems = [
        SystemResults(
            name=name, spec=name, kind="hugging-face", sha256="0", facts=None if name == "bm25" else facts(name, 1000),
            tasks={task.name: task_result(task, found[task.name]) for task in tasks if task.name in found}, against_bm25=None,
        )
        for name, found in scores.items()
    ]  # fmt: skip
    found = means(tasks, scores)
    board = Leaderboard(tasks=tasks, left_out=[], systems=systems, means=found, group_means=[], settings={}, versions={})
    write_record(path, board)
    return path


SCORES = {
    "model": {"Kaynak": 0.5, "Sorular": 0.3, "STSb": 0.7},
    "bm25": {"Kaynak": 0.6, "Sorular": 0.2},
}


def test_a_leaderboards_qualities(tmp_path):
    path = write_leaderboard(tmp_path / "results.json", SCORES)
    model, bm25 = read_leaderboard(path).rows
    assert {name: model.value(name) for name in ("mean", "retrieval")} == pytest.approx({"mean": 50, "retrieval": 40})
    assert model.value("legal") is None and "no legal mean" in read_leaderboard(path).notes[0]
    assert model.value("backbone_parameters") == 900 and model.value("dimensions") == 16
    assert bm25.value("mean") is None and bm25.value("retrieval") == pytest.approx(40) and bm25.value("parameters") is None
    assert read_leaderboard(path, ["Sorular"]).rows[0].value("legal") == pytest.approx(30)
    with pytest.raises(UserError, match=r"--legal-tasks Yasa: .* it has Kaynak, Sorular, STSb"):
        read_leaderboard(path, ["Yasa"])
    with pytest.raises(UserError, match="make it with `mecellem evaluate`"):
        read_leaderboard(tmp_path / "none.json")


def test_legal_is_the_mean_of_the_three_legal_tasks(tmp_path):
    legal = {task.name: score for task, score in zip(MECELLEM_LEGAL, (0.2, 0.4, 0.9), strict=True)}
    scores = {"model": {"Kaynak": 0.1} | legal, "other": {"Kaynak": 0.3} | dict(list(legal.items())[:2])}
    found = read_leaderboard(write_leaderboard(tmp_path / "results.json", scores)).rows
    assert found[0].value("legal") == pytest.approx(50) and found[1].value("legal") is None


def test_benchmarks_stay_apart(tmp_path):
    """Published rows and a leaderboard stand on boards of their own: their scores do not compare."""
    path = write_leaderboard(tmp_path / "board.json", SCORES)
    results = run(tmp_path / "results.json", "--leaderboard", path)
    published, own = results.boards
    assert len(published.rows) == 7 and [row.name for row in own.rows] == ["model", "bm25"]
    ratio = own.scores[0]
    assert ratio.best["mean"] == pytest.approx(50) and ratio.systems[0].score == pytest.approx(100)
    alone = make_board(read_leaderboard(path), [], read_definitions(), "none")
    assert own.scores == alone.scores


def test_a_system_has_its_own_settings(tmp_path, texts):
    own, folder = tmp_path / "encoders.yaml", write_model2vec(tmp_path / "static")
    own.write_text("short: {max_seq_length: 3}\n", encoding="utf-8")
    words = (f"short={folder}", f"long={folder}", "--texts", texts, *SHORT, "--encoders", own, "--cache", tmp_path / "cache")
    results = run(tmp_path / "results.json", *words)
    short, long = results.measured
    assert short.max_seq_length == 3 and long.max_seq_length != 3
    assert list(results.settings["own"]) == ["short"] and results.settings["own"]["short"]["max_seq_length"] == 3


def test_bad_input_stops_before_anything_is_measured(tmp_path, texts, monkeypatch):
    monkeypatch.setattr("evaluation.efficiency.cost.measure_alone", lambda *_: pytest.fail("measured"))
    folder = write_transformer(tmp_path / "model")
    bad = tmp_path / "bad.yaml"
    bad.write_text("definitions: 3")
    for words, message in (
        ((folder, "--texts", texts, "--definitions", bad), "bad.yaml, line 1: `definitions` is 3"),
        ((folder, "--texts", texts), "12 documents with text, but 256 are needed"),
        ((folder, "--texts", tmp_path / "none.jsonl"), "is not a file"),
        (("bm25",), "bm25 makes no vectors"),
        ((tmp_path / "nothing", "--texts", texts), "neither a folder nor one of"),
        (("--table",), "there is nothing to rank"),
        (("--encoders", bad), "bad.yaml: there are no systems that it could be for"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "results.json", *words)
    assert not (tmp_path / "results.json").exists()
