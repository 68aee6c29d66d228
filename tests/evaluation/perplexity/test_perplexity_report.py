"""What `mecellem report` shows of what `mecellem evaluate perplexity` wrote."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
from browser_pages import check_page

from evaluation.perplexity import main as measure
from evaluation.perplexity.results import PerplexityResults
from evaluation.report import main as report
from mecellem.errors import UserError

FLAGS = ["--window", "48", "--stride", "20", "--domain-field", "branch", "--device", "cpu"]


@pytest.fixture(scope="module")
def measured(llama: Path, qwen3: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models measured for real."""
    out = tmp_path_factory.mktemp("measured") / "results.json"
    assert measure([str(llama), str(qwen3), "--texts", str(texts), "--out", str(out), *FLAGS]) == 0
    return out


def cells(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row, re.DOTALL)] for row in rows]


def check(page: str, results: PerplexityResults) -> None:
    """Every figure of the results is in the page's table, and no address leaves the page."""
    rows = cells(page)
    before, after = results.models
    assert any(row[0].startswith("sentence20 documents, ") for row in rows)
    for domain in (*before.by_domain, "all"):
        one, two = ((model.by_domain | {"all": model.all})[domain] for model in results.models)
        change = (after.change_by_domain | {"all": after.change})[domain]
        first = next(row for row in rows if row[:3] == [before.name, f"{one.tokens:,}", f"{one.perplexity:.2f}"])
        second = next(row for row in rows if row[:3] == [after.name, f"{two.tokens:,}", f"{two.perplexity:.2f}"])
        assert first[5] == f"{one.bits_per_byte:.3f}" and first[4] == first[7] == ""
        assert second[4] == f"{change.perplexity:+.1%}" and second[7].startswith(f"{change.bits_per_byte:+.3f}")
    low, high = after.all.perplexity_interval
    assert f"{low:.2f}–{high:.2f}" in second
    found = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert all(address.startswith(("data:image/png;base64,", "data:text/csv;charset=utf-8;base64,")) for address in found)
    assert page.count("data:image/png;base64,") == 8  # loss, dynamics, curriculum and perplexity in two themes


def test_the_results_in_the_runs_evaluation_are_shown(decoder_run: Path, measured: Path):
    (decoder_run / "evaluation").mkdir()
    shutil.copy(measured, decoder_run / "evaluation" / "perplexity.json")
    assert report([str(decoder_run)]) == 0
    page, results = (decoder_run / "report.html").read_text(), PerplexityResults.model_validate_json(measured.read_bytes())
    check(page, results)
    before, after = results.models
    change = f"{before.all.perplexity:.2f} ({before.name}) → {after.all.perplexity:.2f}, {after.change.perplexity:+.1%}"
    assert f"On held-out text perplexity went {change}" in page
    assert "Not evaluated yet" not in page and "Intervals of perplexity redraw documents" in page
    summary = json.loads((decoder_run / "summary.json").read_text())
    assert summary["perplexity"] == json.loads(measured.read_text())
    assert (decoder_run / "report_figures" / "perplexity-dark.png").read_bytes().startswith(b"\x89PNG")


def test_results_elsewhere_are_named_by_a_flag(decoder_run: Path, measured: Path):
    report([str(decoder_run), "--perplexity", str(measured)])
    check((decoder_run / "report.html").read_text(), PerplexityResults.model_validate_json(measured.read_bytes()))


def test_the_runs_own_checkpoint_is_the_one_after(decoder_run: Path, measured: Path):
    values = json.loads(measured.read_text())
    values["models"].append(copy.deepcopy(values["models"][1]) | {"name": "baseline"})
    values["models"][1] |= {"name": "step_0000040", "folder": str(decoder_run / "checkpoints" / "step_0000040")}
    values["models"][1]["all"]["perplexity"] = 12.34
    (decoder_run / "p.json").write_text(json.dumps(values))
    report([str(decoder_run), "--perplexity", str(decoder_run / "p.json")])
    assert "→ 12.34, " in (decoder_run / "report.html").read_text()


def test_one_model_alone_and_other_tokens(decoder_run: Path, measured: Path):
    values = json.loads(measured.read_text())
    values["models"][1]["change"] |= {"perplexity": None, "perplexity_interval": None}
    (decoder_run / "p.json").write_text(json.dumps(values))
    report([str(decoder_run), "--perplexity", str(decoder_run / "p.json")])
    page = (decoder_run / "report.html").read_text()
    assert "bits per byte went" in page and "perplexity went" not in page and "compare by bits per byte only" in page
    values["models"] = values["models"][:1]
    (decoder_run / "p.json").write_text(json.dumps(values))
    report([str(decoder_run), "--perplexity", str(decoder_run / "p.json")])
    page = (decoder_run / "report.html").read_text()
    assert "has a perplexity of" in page and "Changes are" not in page


def test_bad_results_are_refused(decoder_run: Path, measured: Path):
    with pytest.raises(UserError, match=r"none\.json is missing: measure with `mecellem evaluate perplexity"):
        report([str(decoder_run), "--perplexity", str(decoder_run / "none.json")])
    for text, message in (
        ("{}", r"p\.json: texts: Field required"),
        (json.dumps({**json.loads(measured.read_text()), "format": "other/9"}), r"p\.json has format 'other/9'"),
    ):
        (decoder_run / "p.json").write_text(text)
        with pytest.raises(UserError, match=message):
            report([str(decoder_run), "--perplexity", str(decoder_run / "p.json")])
    assert not (decoder_run / "report.html").exists()


def test_results_have_a_page_of_their_own(measured: Path, tmp_path: Path):
    report([str(measured), "--out", str(tmp_path / "page.html")])
    check_page(tmp_path / "page.html")
    found = PerplexityResults.model_validate_json(measured.read_bytes())
    rows = cells((tmp_path / "page.html").read_text(encoding="utf-8"))
    for model in found.models:
        for domain, score in (model.by_domain | {"all": model.all}).items():
            assert any(row[:2] == [domain, model.name] and f"{score.perplexity:.2f}" in row for row in rows)
            assert any(row[:2] == [domain, model.name] and f"{score.bits_per_byte:.3f}" in row for row in rows)
