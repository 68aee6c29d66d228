from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser

import pytest
import yaml
from browser_pages import DESK, check_page, column, opened

from evaluation.drawing import LIGHT, styled
from evaluation.report import main
from evaluation.report.gather import gather
from evaluation.report.page import dotted
from evaluation.report.plots import dynamics_figure
from evaluation.selection.measure import select_checkpoint
from evaluation.selection.results import SYSTEMS
from evaluation.selection.tables import FILL_MASK_NOTE, percent, score
from mecellem.errors import UserError
from megatron_recipes.plan import human_count


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
    assert page.open == [] and "link" not in page.tags and "iframe" not in page.tags
    pictures = [address for address in page.loads if address.startswith("data:image/png;base64,")]
    tables = [address for address in page.loads if address.startswith("data:text/csv;charset=utf-8;base64,")]
    assert len(pictures) == 2 * len(tables) > 0 and len(page.loads) == len(pictures) + len(tables)
    assert not re.search(r"@import|url\(|https?://", source)
    for address in pictures:
        assert base64.b64decode(address.split(",", 1)[1]).startswith(b"\x89PNG")


def test_page_in_a_browser(written):
    check_page(written)
    with opened(written, DESK) as tab:
        tab.click("table:has(th:text('fill-mask')) th:nth-child(4)")
        losses = [float(text) for text in column(tab, "table:has(th:text('fill-mask'))", 4)]
    assert len(losses) > 1 and losses == sorted(losses, reverse=True)


def test_page_shows_every_figure_of_the_evaluation(written, evaluated_run):
    text = Page(written.read_text()).text
    selection = json.loads((evaluated_run / "evaluation" / "selection.json").read_text())
    assert selection["sentence"] in text
    for agreement in selection["agreement"]:
        assert agreement["sentence"] in text
    shown = [selection["baselines"], selection["test"]["systems"]]
    assert [len(systems) for systems in shown] == [3, 5]
    for systems in shown:
        for system, scores in systems.items():
            assert SYSTEMS[system] in text
            for result in scores["tasks"].values():
                assert f"{result['main_score']:.3f}".removeprefix("0") in text
    for sample in selection["test"]["samples"]:
        assert sample["truth"] in text
    for word in ("GPL", "public domain", "unigram", "Left out of the validation split's tasks: libreoffice_title", "Versions"):
        assert word in text
    assert f"peaks at step {selection['peak_step']} ({selection['peak_tokens']:,} tokens)" in text
    assert f"loss is lowest at step {selection['loss_step']} ({selection['loss_tokens']:,} tokens)" in text


def test_model_and_unigram_are_compared_on_masks_only(written):
    test = json.loads((written.parent / "summary.json").read_text())["evaluation"]["test"]
    ours, theirs = (test[name]["all"]["top1_mask_only"] for name in ("fill_mask", "unigram"))
    page = Page(written.read_text())
    ratio = f"{ours / theirs:.1f} times the" if ours and theirs else "beside"
    assert f"fills {percent(ours)} of [MASK]s with the exact token, {ratio} {percent(theirs)}" in page.text
    assert f"[MASK]s filled{percent(ours)}unigram {percent(theirs)}" in page.text
    assert "top-1, 80/10/10" in page.text and FILL_MASK_NOTE in page.text


def test_pictures_and_summary_stand_beside_it(written):
    names = {path.name for path in (written.parent / "report_figures").iterdir()}
    endings = (".png", "-dark.png", ".csv")
    assert names == {f"{name}{end}" for name in ("loss", "dynamics", "checkpoints", "systems") for end in endings}
    summary = json.loads((written.parent / "summary.json").read_text())
    assert summary["training"]["steps"] == 40 and summary["training"]["validation_lowest"]["step"] == 40
    evaluation = summary["evaluation"]
    assert set(evaluation["test"]["retrieval"]) == set(SYSTEMS)
    assert set(evaluation["validation"]["retrieval"]) == set(SYSTEMS)
    assert evaluation["best_step"] in (20, 30, 40) and len(evaluation["checkpoints"]) == 3
    assert evaluation["test"]["fill_mask"]["all"]["masked"] == evaluation["test"]["unigram"]["all"]["masked"] > 0


class Tables(HTMLParser):
    """The cells of every table's body."""

    def __init__(self, text: str):
        super().__init__()
        self.cells: list[str] = []
        self.body = False
        self.feed(text)

    def handle_starttag(self, tag, _):
        self.body = self.body or tag == "tbody"
        if self.body and tag in ("td", "th", "small"):
            self.cells.append("")

    def handle_endtag(self, tag):
        self.body = self.body and tag != "tbody"

    def handle_data(self, data):
        if self.body and self.cells:
            self.cells[-1] += data


FORMATS = (
    str, human_count, percent, score, "{:,}".format, "{:.2f}".format, "{:.3f}".format, "{:+.3f}".format
)  # fmt: skip
FIGURE = re.compile(r"[<+-]?(?:\d[\d,]*)?\.?\d+[kMBT%]?")


def leaves(tree):
    match tree:
        case dict():
            for value in tree.values():
                yield from leaves(value)
        case list():
            yield from (leaf for value in tree for leaf in leaves(value))
            yield tree
        case _:
            yield tree


def not_in_summary(page: str, summary) -> list[str]:
    """The cells of the page's tables with a figure that no value of the summary is printed as."""
    values = list(leaves(summary))
    printed = {str(value).strip() for value in values}
    for value in values:
        if isinstance(value, int | float):
            printed |= {show(value) for show in FORMATS}
    cells = [cell.strip() for cell in Tables(page).cells]
    names = {cell for cell in cells if re.fullmatch(r"[a-z_0-9.]+", cell) and re.search("[a-z]", cell)}
    cells = [cell for cell in cells if cell not in names and not set(cell.split()) <= printed]  # "package 0.1.2": both
    return [cell for cell in cells if cell not in printed and set(FIGURE.findall(cell)) - printed]


def test_every_figure_of_the_tables_is_in_the_summary(written):
    page, summary = written.read_text(), json.loads((written.parent / "summary.json").read_text())
    assert len([cell for cell in Tables(page).cells if FIGURE.search(cell)]) > 100
    assert not_in_summary(page, summary) == []
    for name in ("corpus", "settings", "evaluation"):  # the check itself sees what is missing
        assert not_in_summary(page, {key: value for key, value in summary.items() if key != name}), name
    for name in ("checkpoints", "validation", "test"):
        evaluation = {key: value for key, value in summary["evaluation"].items() if key != name}
        assert not_in_summary(page, summary | {"evaluation": evaluation}), name


def test_the_curves_data_are_those_of_the_selection(written, evaluated_run):
    selection = json.loads((evaluated_run / "evaluation" / "selection.json").read_text())
    lines = list(csv.DictReader((written.parent / "report_figures" / "checkpoints.csv").open()))
    for series, metric in (("model, post-trained", "post_trained"), ("model, mean-pooled", "mean_pooled")):
        found = {int(float(line["x"])): float(line["y"]) for line in lines if line["series"] == series}
        means = {row["tokens"]: row[metric]["mean"] for row in selection["checkpoints"]}
        assert found == pytest.approx(means)
    losses = {int(float(line["x"])): float(line["y"]) for line in lines if line["series"] == "checkpoints, fill-mask"}
    assert losses == pytest.approx({row["tokens"]: row["fill_mask"]["all"]["nll"] for row in selection["checkpoints"]})


def test_a_selection_without_tasks_or_post_training_has_its_page(evaluated_run, small_corpus, plain_corpus, settings, tmp_path):
    cache = evaluated_run / "evaluation" / "cache"
    for name, corpus, budget in (("cheap", small_corpus, 0), ("plain", plain_corpus, 3)):
        folder = tmp_path / name
        select_checkpoint(evaluated_run, corpus, folder, settings, budget=budget, cache=cache, device="cpu")
        assert main([str(evaluated_run), "--evaluation", str(folder), "--out", str(folder / "report.html")]) == 0
    text = Page((tmp_path / "cheap" / "report.html").read_text()).text
    assert "“post-trained” is" not in text and "Retrieval mean-pooled peaks at step" in text
    text = Page((tmp_path / "plain" / "report.html").read_text()).text
    assert "Retrieval was not measured" in text and "No retrieval task can be had" in text


def test_two_reports_are_the_same(written, evaluated_run, tmp_path):
    main([str(evaluated_run), "--out", str(tmp_path / "report.html")])
    assert (tmp_path / "report.html").read_bytes() == written.read_bytes()


def test_a_run_without_evaluation_says_how_to_make_it(run, capsys):
    assert main([str(run)]) == 0
    page = Page((run / "report.html").read_text())
    assert f"mecellem select {run} --corpus data/corpus --out {run / 'evaluation'}" in page.text
    assert "Not evaluated yet" in page.text
    assert json.loads((run / "summary.json").read_text())["evaluation"] is None
    assert "took" in capsys.readouterr().out


def in_fp8(run, emulate):
    values = yaml.safe_load((run / "run.yaml").read_text())
    values["config"] |= {"precision": "fp8_current", "fp8": {"emulate": emulate, "param_gather": False}}
    (run / "run.yaml").write_text(yaml.safe_dump(values))
    assert main([str(run)]) == 0
    with styled(LIGHT):
        panels = [axes.get_title("left") for axes in dynamics_figure(gather(run, run / "evaluation", None), LIGHT).axes]
    return Page((run / "report.html").read_text()).text, (run / "summary.json").read_text(), panels


def test_emulated_fp8_is_named_and_has_no_speed(run):
    text, summary, panels = in_fp8(run, emulate=True)
    assert "40 steps, FP8 emulated: training loss" in text and "FP8 emulated (fp8_current)" in text
    for word in ("a second", "tokens per second", "throughput", "of step time"):
        assert word not in text.lower(), word
    training = json.loads(summary)["training"]
    assert training["emulated_fp8"] == "fp8_current"
    assert training["tokens_per_second_median"] is None and training["seconds"] is None
    assert panels == ["Learning rate", "Gradient norm"]


def test_real_fp8_has_its_speed(run):
    text, summary, panels = in_fp8(run, emulate=False)
    assert "emulated (" not in text and "FP8 emulated" not in text
    assert "5,020 tokens a second (median)" in text and "Learning rate, throughput and gradient norm." in text
    assert json.loads(summary)["training"]["tokens_per_second_median"] == 5020
    assert panels == ["Learning rate", "Tokens per second", "Gradient norm"]


def test_one_step_and_no_validation_is_enough(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text(lines[0] + "\n")
    assert main([str(run)]) == 0


def test_text_is_escaped(run):
    settings = (run / "run.yaml").read_text().replace("mursit_tiny", "<script>alert(1)</script>")
    (run / "run.yaml").write_text(settings)
    main([str(run)])
    page = (run / "report.html").read_text()
    assert Page(page).tags.count("script") == 1 and "alert(1)" not in page.partition("<script>")[2]  # the page's own


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("run.yaml", "a: [", "not valid YAML"),
        ("run.yaml", "", "has no config"),
        ("metrics.jsonl", "", "the run has not started"),
        ("metrics.jsonl", '{"step": 1, "lo\n{"step": 2}\n', "line 1 is broken"),
        ("evaluation/selection.json", "{}", r"selection.json: run: Field required; remove it and select again with `mecellem"),
        ("evaluation/selection.json", "{", "selection.json"),
    ],
)
def test_bad_files_are_named_and_nothing_is_written(run, name, text, sentence):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(text)
    with pytest.raises(UserError, match=sentence):
        main([str(run)])
    assert not (run / "report.html").exists() and not (run / "summary.json").exists()


def test_a_missing_run_is_told(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        main([str(tmp_path / "none")])


def test_dotted_names():
    assert dotted({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
