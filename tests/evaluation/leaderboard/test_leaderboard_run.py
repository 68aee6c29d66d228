"""Systems x tasks through mteb: scores, cache, interruption, and every refusal before a text is encoded."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from browser_pages import check_page
from encoder_models import spoil, write_sentence_transformer, write_transformer
from rich.console import Console
from tiny_tasks import LAW, TinyRetrieval, TinyTasks, broken

from evaluation.encoders import EncoderSettings, open_encoder
from evaluation.encoders.base import BatchedEncoder
from evaluation.leaderboard.measure import evaluate_systems
from evaluation.leaderboard.results import Leaderboard
from evaluation.leaderboard.tables import board_tables, print_board, score
from evaluation.report import main as report
from evaluation.results import LeftOut
from evaluation.tasks.facts import Found
from evaluation.tasks.settings import CorpusTaskSettings
from mecellem.console import console
from mecellem.errors import UserError
from post_training.model_folder import pick_device

ALL = ("retrieval", "bitext", "classification")
SETTINGS = EncoderSettings()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformer(tmp_path_factory.mktemp("models") / "kucuk")


def run(
    folder: Path, specs, names=ALL, find=TinyTasks, settings=SETTINGS, device="cpu", encoders=None, categories=()
) -> Leaderboard:
    words, places = [str(spec) for spec in specs], (folder / "corpus", folder, folder / "cache")
    return evaluate_systems(words, names, *places, settings, CorpusTaskSettings(), device, find, encoders, categories)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(model, texts) of every call of an encoder."""
    calls: list[tuple[str, int]] = []
    encode = BatchedEncoder.encode

    def counted(self, texts, role):
        calls.append((self.name, len(list(texts))))
        return encode(self, texts, role)

    monkeypatch.setattr(BatchedEncoder, "encode", counted)
    return calls


def test_scores_are_those_of_vectors_ranked_by_hand(tmp_path: Path, model: Path):
    import numpy as np

    board = run(tmp_path, [model, "akana"])
    assert [system.name for system in board.systems] == ["kucuk", "akana", "bm25"]
    for system in board.systems[:2]:
        encoder = open_encoder(system.spec, device="cpu")
        queries = encoder.encode([title for title, _ in LAW], "query")
        documents = encoder.encode([text for _, text in LAW], "document")
        ranks = (-(queries @ documents.T)).argsort(axis=1).argsort(axis=1).diagonal() + 1
        result = system.tasks["TinyRetrieval"]
        wanted = 1 / np.log2(ranks + 1)  # one relevant document a query
        assert result.per_item is not None and result.per_item_metric == result.main_metric == "ndcg_at_10"
        assert np.allclose(list(result.per_item["default"].values()), wanted, atol=1e-6)
        assert result.main_score == pytest.approx(wanted.mean(), abs=1e-4)
        sides = [encoder.encode([f"{text}{end}" for _, text in LAW], "text") for end in ("", " Böyle biter.")]
        pairs = sides[0] @ sides[1].T
        bitext = system.tasks["TinyBitext"]
        assert bitext.per_item == {"default": {str(row): float(pairs[row].argmax() == row) for row in range(len(LAW))}}
        assert bitext.main_score == pytest.approx((pairs.argmax(axis=1) == np.arange(len(LAW))).mean())
        assert system.tasks["TinyClassification"].per_item is None


def test_bm25_is_always_there_for_retrieval_and_has_no_mean_over_tasks_that_it_cannot_do(tmp_path: Path):
    board = run(tmp_path, ["use"])
    bm25 = board.systems[1]
    assert bm25.kind == "bm25" and list(bm25.tasks) == ["TinyRetrieval"]
    assert bm25.tasks["TinyRetrieval"].main_score > 0.6
    means = {mean.name: mean for mean in board.means}
    assert means["mean (task)"].values["bm25"] is None and means["mean (task type)"].values["bm25"] is None
    assert means["mean (task)"].missing == {"bm25": ["TinyBitext", "TinyClassification"]}
    assert means["retrieval"].values["bm25"] == bm25.tasks["TinyRetrieval"].main_score
    found = board.systems[0].against_bm25
    assert found is not None and found.difference == pytest.approx(
        board.systems[0].tasks["TinyRetrieval"].main_score - bm25.tasks["TinyRetrieval"].main_score, abs=1e-4
    )
    assert [system.kind for system in run(tmp_path, ["use"], ("bitext",)).systems] == ["use"]
    assert len(run(tmp_path, ["bm25"], ("retrieval",)).systems) == 1


def test_a_model_is_given_its_own_prompts_and_others_keep_theirs(tmp_path: Path, model: Path, encoded):
    plain = run(tmp_path, [f"a={model}"], ("retrieval",)).systems[0]
    own, before = tmp_path / "encoders.yaml", len(encoded)
    own.write_text('b: {query_prompt: "kanun ve karar: ", document_prompt: "x: "}\n', encoding="utf-8")
    board = run(tmp_path, [f"a={model}", f"b={model}"], ("retrieval",), encoders=own)
    one, other = board.systems[:2]
    assert one.facts is not None and other.facts is not None
    assert one == plain and {name for name, _ in encoded[before:]} == {"b"}  # a's scores were kept
    assert (one.facts.query_prompt, other.facts.query_prompt) == ("", "kanun ve karar: ")
    assert one.tasks["TinyRetrieval"].per_item != other.tasks["TinyRetrieval"].per_item
    assert board.settings["own"]["b"]["document_prompt"] == "x: "


def test_results_are_written_and_read_back(tmp_path: Path, model: Path):
    board = run(tmp_path, [model])
    assert Leaderboard.model_validate_json((tmp_path / "results.json").read_bytes()) == board


def test_the_page_has_every_score(tmp_path: Path, model: Path):
    board = run(tmp_path, [model, "akana"])
    assert report([str(tmp_path / "results.json"), "--out", str(tmp_path / "page.html")]) == 0
    check_page(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for system in board.systems:
        for result in system.tasks.values():
            assert result.task in page and f"<td>{score(result.main_score)}</td>" in page
    assert "is in no mean" not in page and "paired bootstrap over queries" in page


def test_second_call_encodes_nothing_and_opens_no_task(tmp_path: Path, model: Path, encoded):
    first = run(tmp_path, [model])
    opened = TinyTasks.opened
    assert encoded and opened
    encoded.clear()
    assert run(tmp_path, [model]) == first
    assert not encoded and TinyTasks.opened == opened


def test_what_scores_depend_on_makes_them_anew(tmp_path: Path, model: Path, encoded):
    run(tmp_path, [model], ("retrieval",))
    for change in ({"max_seq_length": 20}, {"query_prompt": "soru: "}, {"pooling": "cls"}, {"dtype": "bf16"}):
        encoded.clear()
        run(tmp_path, [model], ("retrieval",), settings=EncoderSettings(**change))
        assert encoded, change
    encoded.clear()
    run(tmp_path, [model], ("retrieval",), settings=EncoderSettings(batch_tokens=64))
    assert not encoded
    run(tmp_path, [model], ("retrieval",), find=type("OtherTasks", (TinyTasks,), {"revision": "2"}))
    assert encoded
    encoded.clear()
    other = write_transformer(tmp_path / "b" / "kucuk", seed=1)
    run(tmp_path, [other], ("retrieval",))
    assert encoded


def test_interrupted_call_goes_on_where_it_was(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, encoded):
    import evaluation.leaderboard.scoring as scoring

    score = scoring.score

    def interrupted(system, task, facts, device):
        if facts.name == "TinyClassification":
            raise KeyboardInterrupt
        return score(system, task, facts, device)

    monkeypatch.setattr(scoring, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [model])
    assert not (tmp_path / "results.json").exists()
    monkeypatch.setattr(scoring, "score", score)
    encoded.clear()
    board = run(tmp_path, [model])
    assert all(count <= len(LAW) for _, count in encoded) and len(encoded) == 2  # train and test of the classification
    assert list(board.systems[0].tasks) == ["TinyRetrieval", "TinyBitext", "TinyClassification"]


def test_only_tasks_of_some_categories(tmp_path: Path, model: Path):
    board = run(tmp_path, [model], categories=("retrieval",))
    assert [task.name for task in board.tasks] == ["TinyRetrieval"]
    assert [system.name for system in board.systems] == ["kucuk", "bm25"]
    with pytest.raises(UserError, match="--tasks bitext has no task of retrieval, but bitext"):
        run(tmp_path, [model], ("bitext",), categories=("retrieval",))


def test_new_task_scores_only_itself(tmp_path: Path, model: Path, encoded):
    run(tmp_path, [model], ("bitext",))
    encoded.clear()
    run(tmp_path, [model], ("bitext", "retrieval"))
    assert len(encoded) == 2  # queries and documents


TWICE = "are there more than once"
REFUSED = {
    "qrels name missing documents": (
        {"judgements": {"q0": {"d0": 1, "yok": 1}}},
        r"TinyRetrieval, test: judgements name 1 documents that the corpus lacks \('yok'\)",
    ),
    "qrels name missing queries": (
        {"judgements": {"q0": {"d0": 1}, "kim": {"d1": 1}}},
        r"name 1 queries that are not there \('kim'\)",
    ),
    "duplicate documents": ({"documents": [("d0", "bir"), ("d0", "iki")]}, rf"ids of documents {TWICE} \('d0'\)"),
    "duplicate queries": ({"queries": [("q0", "bir"), ("q0", "iki")]}, rf"ids of queries {TWICE} \('q0'\)"),
    "nothing relevant": ({"judgements": {"q0": {"d0": 0}}}, "no query has a relevant document"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_data_is_refused_before_anything_is_encoded(case: str, tmp_path: Path, model: Path, encoded):
    parts, sentence = REFUSED[case]
    with pytest.raises(UserError, match=sentence):
        run(tmp_path, [model], ("retrieval",), find=broken(**parts))
    assert not encoded and not (tmp_path / "results.json").exists()


def test_bad_model_is_refused_before_tasks_are_looked_up(tmp_path: Path, model: Path):
    def never(*_, **__):
        raise AssertionError("too early")

    with pytest.raises(UserError, match="nowhere is neither a folder"):
        run(tmp_path, [model, "nowhere"], find=never)
    with pytest.raises(UserError, match="no model was given"):
        run(tmp_path, [], find=never)
    with pytest.raises(UserError, match="a model is called 'bm25'"):
        run(tmp_path, [f"bm25={model}"])


def test_data_that_cannot_be_loaded_is_one_sentence(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, encoded):
    def offline(self, **_):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(TinyRetrieval, "load_data", offline)
    with pytest.raises(UserError, match=r"task TinyRetrieval cannot be loaded \(Couldn't reach the hub\).*prefetch"):
        run(tmp_path, [model])
    assert not encoded


def test_nan_names_the_model_and_keeps_what_was_scored(tmp_path: Path, encoded):
    folder = write_transformer(tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(UserError, match="spoilt gives a vector with NaN"):
        run(tmp_path, ["bm25", folder], ("retrieval",))
    assert len(list((tmp_path / "cache" / "evaluation").glob("score-*.json"))) == 1


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_a_score_that_is_no_number_is_told_of(tmp_path: Path, model: Path):
    with pytest.raises(UserError, match="TinySts: cosine_spearman of this model is no number"):
        run(tmp_path, [model], ("sts",))


def test_empty_documents_and_long_ones_are_counted(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    documents = [("d0", LAW[0][1]), ("d1", ""), ("d2", LAW[1][1] * 9), ("d3", "   "), ("d4", LAW[2][1] * 9)]
    judgements = {"q0": {"d0": 1}, "q1": {"d2": 1}}
    queries = [("q0", LAW[0][0]), ("q1", LAW[1][0])]
    find = broken(documents=documents, judgements=judgements, queries=queries)
    board = run(tmp_path, [model], ("retrieval",), find=find)
    result = board.systems[0].tasks["TinyRetrieval"]
    assert (result.texts, result.empty) == (7, 2)
    assert result.truncated >= 2 / 7 and result.tokens_cut > 0
    printed = capsys.readouterr().out
    assert "of texts cut at the context length" in printed and "2 empty texts" in printed
    assert "pooling mean (assumed: the folder names none" in printed


def test_prompts_and_progress_are_printed_a_line_for_each_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_sentence_transformer(tmp_path / "st")
    run(tmp_path, [folder])
    lines = capsys.readouterr().out.splitlines()
    assert (
        "system 1 of 2: st: pooling cls, 32 tokens, 32 dimensions, fp32, prompts: query 'soru: ', document 'metin: '" in lines
    )
    assert sum(line.strip().startswith("Tiny") for line in lines) == 4


def test_device_and_versions_are_part_of_the_key(tmp_path: Path, model: Path, encoded, monkeypatch: pytest.MonkeyPatch):
    import evaluation.leaderboard.measure as measure

    run(tmp_path, [model], ("bitext",))
    encoded.clear()
    monkeypatch.setattr(measure, "all_versions", partial(dict, mteb="0"))
    run(tmp_path, [model], ("bitext",))
    assert encoded


def test_auto_is_the_device_that_it_finds(tmp_path: Path, model: Path, encoded):
    place = pick_device("auto")
    run(tmp_path, [model], ("bitext",), device=place)
    encoded.clear()
    board = run(tmp_path, [model], ("bitext",), device="auto")
    assert board.settings["device"] == place and encoded == []


def test_systems_that_a_terminal_has_no_room_for_stand_below(tmp_path: Path, model: Path):
    board = run(tmp_path, [f"sistem{number}={model}" for number in range(7)], ("retrieval", "bitext"))
    tables = list(board_tables(board, 80))
    assert [len(table.columns) - 2 for table in tables] == [4, 4]  # seven and BM25
    assert [table.row_count for table in tables] == [tables[0].row_count] * 2
    shown = Console(file=StringIO(), width=80)
    shown.print(*tables)
    printed = shown.file.getvalue()
    assert all(printed.count(f" sistem{number} ") == 1 for number in range(7)) and "TinyRetrieval" in printed
    (whole,) = board_tables(board)
    assert len(whole.columns) == 10


def test_tasks_that_a_group_lacks_are_named_and_in_no_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    class Fewer(TinyTasks):
        def __init__(self, names, **others) -> None:
            super().__init__(("bitext",), **others)
            self.found = Found(self.found.facts, (LeftOut(name="TurkishLegalQA", reason="there is no network"),))

    board = run(tmp_path, ["akana"], ("mecellem-legal",), find=Fewer)
    assert [item.name for item in board.left_out] == ["TurkishLegalQA"]
    (legal,) = board.group_means
    assert legal.values == {"akana": None} and "TurkishLegalQA" in legal.tasks and "3 tasks" in legal.name
    print_board(console(), board)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("TurkishLegalQA is left out: there is no network") == 1
    assert "TurkishLegalQA was left out and is in no mean: there is no network" in printed


@pytest.mark.slow
def test_cached_call_of_the_command_needs_neither_torch_nor_mteb_and_less_than_five_seconds(tmp_path: Path, model: Path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [{"id": str(n), "source": "yasa", "title": f"{n} sayılı karar", "text": f"{n}. madde " * 20} for n in range(40)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    code = (
        "import sys; from evaluation.leaderboard import main; main(sys.argv[1:]); "
        "print('heavy:', [name for name in ('torch', 'mteb', 'transformers', 'datasets') if name in sys.modules])"
    )
    words = [str(model), "use", "--corpus", "corpus", "--out", "out", "--device", "cpu"]
    process = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 240, "check": False}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = partial(subprocess.run, [sys.executable, "-c", code, *words], env=environment, **process)
    first = command()
    assert first.returncode == 0, first.stderr
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = command()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # a busy machine may take longer by the clock
    assert again.returncode == 0, again.stderr
    assert "heavy: []" in again.stdout and again.stdout.count("cached") == 3
    assert took < 5
    assert (tmp_path / "out" / "leaderboard.png").read_bytes().startswith(b"\x89PNG")
    board = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = (tmp_path / "out" / "leaderboard.csv").read_text().splitlines()
    assert len(rows) == 1 + len(board["systems"]) == 4
