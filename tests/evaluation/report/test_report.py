from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from evaluation.measure import SYSTEMS
from evaluation.report import main
from evaluation.report.gather import gather
from evaluation.report.page import flatten, human_count
from mecellem.errors import UserError


class Page(HTMLParser):
    """Collects addresses that a browser would load, tags that must close, and text."""

    VOID = frozenset({"meta", "img", "source", "br", "link"})

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [
            value or "" for name, value in attributes if name in ("src", "srcset", "href", "data", "poster", "action")
        ]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def written(evaluated_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert main([str(evaluated_run), "--out", str(out)]) == 0
    return out


def test_page_is_whole_and_loads_nothing(written):
    source = written.read_text()
    page = Page(source)
    assert page.open == [] and "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert page.loads and all(address.startswith("data:image/png;base64,") for address in page.loads)
    assert not re.search(r"@import|url\(|https?://", source)
    for address in page.loads:
        assert base64.b64decode(address.split(",", 1)[1]).startswith(b"\x89PNG")


def test_page_shows_every_figure_of_the_evaluation(written, evaluated_run):
    text = Page(written.read_text()).text
    selection = json.loads((evaluated_run / "evaluation" / "selection.json").read_text())
    results = json.loads((evaluated_run / "evaluation" / f"step_{selection['best_step']:07d}" / "results.json").read_text())
    assert selection["sentence"] in text
    for system, title in SYSTEMS.items():
        assert title in text
        for scores in results["systems"][system]["tasks"].values():
            assert f"{scores['ndcg_10']:.3f}".removeprefix("0") in text
    for sample in results["samples"]:
        assert sample["truth"] in text
    for word in ("GPL", "public domain", "unigram", "Left out: libreoffice_title", "optimizer.lr", "Versions"):
        assert word in text


def test_pictures_and_summary_stand_beside_it(written, evaluated_run):
    names = {path.name for path in (written.parent / "report_figures").iterdir()}
    assert names == {f"{name}{dark}.png" for name in ("loss", "dynamics", "checkpoints", "systems") for dark in ("", "-dark")}
    summary = json.loads((written.parent / "summary.json").read_text())
    assert summary["training"]["steps"] == 40 and summary["training"]["validation_lowest"]["step"] == 40
    evaluation = summary["evaluation"]
    assert set(evaluation["retrieval"]) == set(SYSTEMS)
    assert evaluation["selection"]["best_step"] in (20, 40)
    assert evaluation["fill_mask"]["all"]["masked"] == evaluation["unigram"]["all"]["masked"] > 0


def test_two_reports_are_the_same(written, evaluated_run, tmp_path):
    main([str(evaluated_run), "--out", str(tmp_path / "report.html")])
    assert (tmp_path / "report.html").read_bytes() == written.read_bytes()


def test_a_run_without_evaluation_says_how_to_make_it(run, capsys):
    assert main([str(run)]) == 0
    page = Page((run / "report.html").read_text())
    assert f"mecellem evaluate {run} --corpus data/corpus --out {run / 'evaluation'}" in page.text
    assert "Not evaluated yet" in page.text
    assert json.loads((run / "summary.json").read_text())["evaluation"] is None
    assert "took" in capsys.readouterr().out


def test_one_step_and_no_validation_is_enough(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text(lines[0] + "\n")
    assert main([str(run)]) == 0


def test_text_is_escaped(run):
    settings = (run / "run.yaml").read_text().replace("mursit_tiny", "<script>alert(1)</script>")
    (run / "run.yaml").write_text(settings)
    main([str(run)])
    assert "script" not in Page((run / "report.html").read_text()).tags


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("run.yaml", "a: [", "not valid YAML"),
        ("run.yaml", "", "holds no settings"),
        ("metrics.jsonl", "", "the run has not started"),
        ("metrics.jsonl", '{"step": 1, "lo\n{"step": 2}\n', "line 1 is broken"),
        ("evaluation/selection.json", "{}", "selection.json: checkpoints: Field required"),
        ("evaluation/selection.json", "{", "selection.json"),
    ],
)
def test_bad_files_are_named_and_nothing_is_written(run, name, text, sentence):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(text)
    with pytest.raises(UserError, match=sentence):
        main([str(run)])
    assert not (run / "report.html").exists() and not (run / "summary.json").exists()


def test_missing_run_and_missing_results(tmp_path, evaluated_run):
    with pytest.raises(UserError, match="is not a run"):
        main([str(tmp_path / "none")])
    run = shutil.copytree(evaluated_run, tmp_path / "run")
    selection = json.loads((run / "evaluation" / "selection.json").read_text())
    for row in selection["checkpoints"]:
        row["results"] = "gone.json"
    (run / "evaluation" / "selection.json").write_text(json.dumps(selection))
    with pytest.raises(UserError, match=r"gone\.json is missing: evaluate the run again"):
        gather(run, run / "evaluation", None)


def test_words_for_numbers():
    assert [human_count(number) for number in (950, 12_000, 5_516_800, 1.2e9, 3e12)] == [
        "950",
        "12 K",
        "5.52 M",
        "1.2 B",
        "3 T",
    ]
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
