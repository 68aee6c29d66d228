"""The report of a decoder's run: stages, mixture and where stages begin."""

import json
import re
from pathlib import Path

import pytest
import yaml
from browser_pages import check_page
from test_report import Page, not_in_summary

from evaluation.drawing import LIGHT, styled
from evaluation.report import main
from evaluation.report.gather import gather
from evaluation.report.plots import dynamics_figure, loss_figure
from mecellem.errors import UserError


def rows_of(page: str) -> list[list[str]]:
    """The cells of every row of the page's tables."""
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row, re.DOTALL)] for row in rows]


def test_it_speaks_of_tokens_and_says_how_to_measure(decoder_run: Path):
    assert main([str(decoder_run)]) == 0
    page = Page((decoder_run / "report.html").read_text())
    assert page.open == []
    check_page(decoder_run / "report.html")
    assert "nats per token" in page.text and "masked" not in page.text.lower()
    newest = decoder_run / "checkpoints" / "step_NNNNNNN"
    out = decoder_run / "evaluation" / "perplexity.json"
    assert f"mecellem evaluate perplexity ckpt/base {newest} --texts data/corpus --out {out}" in page.text
    assert f"mecellem report {decoder_run}" in page.text


def test_stages_and_their_sources_are_in_tables(decoder_run: Path):
    main([str(decoder_run)])
    page = (decoder_run / "report.html").read_text()
    rows = rows_of(page)
    rates = ("0.003, warm-up from 0.001 in 4,000", "0.003 to 0.0003 (cosine)")
    assert ["1 general", "16,000", "100.0%", "100", "1,000", rates[0], "within documents"] in rows
    assert ["2 law", "30,000", "80.0%", "250", "1,000", rates[1], "across documents; RoPE yarn 4 × 64"] in rows
    assert ["share of the tokens", "1 general", "2 law"] in rows
    for row in (["web", "70.0%", "–"], ["english (replay)", "30.0% (≤ 2.5 epochs)", "–"], ["statutes", "–", "100.0%"]):
        assert row in rows
    summary = json.loads((decoder_run / "summary.json").read_text())
    assert [stage["trained_tokens"] for stage in summary["curriculum"]["stages"]] == [16_000, 30_000]
    assert summary["curriculum"]["stages"][0]["shares"] == {"web": 0.7, "english": 0.3}
    assert summary["curriculum"]["replaced_after_steps"] == [] and summary["perplexity"] is None
    assert {"curriculum.png", "curriculum-dark.png"} <= {path.name for path in (decoder_run / "report_figures").iterdir()}
    assert not_in_summary(page, {**summary, "curriculum": None})


def test_loss_and_dynamics_show_where_stages_begin(decoder_run: Path):
    data = gather(decoder_run, decoder_run / "evaluation", None)
    with styled(LIGHT):
        loss, dynamics = loss_figure(data, LIGHT), dynamics_figure(data, LIGHT)
    for axes in (*loss.axes, *dynamics.axes):
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":" or line.is_dashed()] == [16_000]
    assert [text.get_text() for text in loss.axes[0].texts] == ["1 general", "2 law"]
    assert all(not text.get_text() for axes in dynamics.axes for text in axes.texts)


def test_a_stage_too_short_for_its_name_has_its_number(decoder_run: Path):
    values = yaml.safe_load((decoder_run / "run.yaml").read_text())
    for old, new in (("tokens: 16K", "tokens: 1K"), (", initial: 1.0e-3, warmup_tokens: 4K", ""), ("30K", "60K")):
        values["curriculum"] = values["curriculum"].replace(old, new)
    (decoder_run / "run.yaml").write_text(yaml.safe_dump(values))
    data = gather(decoder_run, decoder_run / "evaluation", None)
    with styled(LIGHT):
        texts = [text.get_text() for text in loss_figure(data, LIGHT).axes[0].texts]
    assert texts == ["1", "2 law"]


def test_a_replaced_curriculum_is_told(decoder_run: Path):
    values = yaml.safe_load((decoder_run / "run.yaml").read_text())
    values["earlier_curricula"] = [{"replaced_after_step": 20, "curriculum": "stages: [...]"}]
    (decoder_run / "run.yaml").write_text(yaml.safe_dump(values))
    main([str(decoder_run)])
    assert "Until step 20 (20.0k tokens) another curriculum held" in Page((decoder_run / "report.html").read_text()).text
    assert json.loads((decoder_run / "summary.json").read_text())["curriculum"]["replaced_after_steps"] == [20]


def test_names_in_a_curriculum_are_escaped(decoder_run: Path):
    settings = (decoder_run / "run.yaml").read_text().replace("name: statutes", "name: <script>x</script>")
    (decoder_run / "run.yaml").write_text(settings)
    main([str(decoder_run)])
    page = (decoder_run / "report.html").read_text()
    assert Page(page).tags.count("script") == 1 and "<script>x" not in page  # the page's own


def test_a_broken_curriculum_in_the_record_is_named(decoder_run: Path):
    settings = (decoder_run / "run.yaml").read_text().replace("weight: 0.7", "weight: 0.1")
    (decoder_run / "run.yaml").write_text(settings)
    with pytest.raises(UserError, match=r"run\.yaml, line .* the weights sum to 0\.4"):
        main([str(decoder_run)])
    assert not (decoder_run / "report.html").exists()


def test_an_encoder_has_no_perplexity(run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="is an encoder's run, which has no perplexity: remove the flag"):
        main([str(run), "--perplexity", str(tmp_path / "results.json")])
