"""The command: two models, two judges, figures that follow from the scores, and nothing done twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from browser_pages import check_page
from tiny_judges import AXES, write_classifier

from evaluation.report import main as report
from evaluation.reward.command import main
from evaluation.reward.generate import Writer
from evaluation.reward.judges import open_judge, score_conversations
from evaluation.reward.measure import Reader
from evaluation.reward.prompts import read_prompts
from evaluation.reward.results import RewardResults
from mecellem.errors import UserError

pytestmark = pytest.mark.timeout(300)


def run(out: Path, judges: list[Path], base: Path, continued: Path, prompts: Path, *more: str) -> RewardResults:
    flags = ["--base", base, "--continued", continued, "--prompts", prompts, "--out", out, "--device", "cpu"]
    main([str(word) for word in ("--judge", *judges, *flags, "--max-new-tokens", 10, *more)])
    return RewardResults.model_validate_json(out.read_bytes())


@pytest.fixture(scope="module")
def judged(tmp_path_factory, armorm, classifier, writers, prompts):
    out = tmp_path_factory.mktemp("out") / "results.json"
    return out, run(out, [armorm, classifier], *writers, prompts)


def test_figures_follow_from_the_scores(judged, armorm):
    out, results = judged
    assert [scores.judge.layout for scores in results.judges] == ["armorm", "classifier"]
    gated, plain = results.judges
    assert list(gated.base) == [*AXES, "overall"] and list(plain.base) == list(AXES)
    for scores in results.judges:
        for row in scores.comparisons:
            differences = np.array(scores.continued[row.axis]) - np.array(scores.base[row.axis])
            assert row.difference == pytest.approx(differences.mean())
            assert row.interval[0] <= row.difference <= row.interval[1]
    assert results.prompt_count == 6 and results.base.name == "base" and results.continued.name == "continued"
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(out.with_suffix(".csv").open()))
    assert len(rows) == 11
    assert float(rows[0]["difference"]) == gated.comparisons[0].difference


def test_the_page_has_every_axis(judged, tmp_path):
    out, results = judged
    assert report([str(out), "--out", str(tmp_path / "page.html")]) == 0
    check_page(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for scores in results.judges:
        for row in scores.comparisons:
            assert f"<td>{row.base:.3f}</td><td>{row.continued:.3f}</td>" in page and row.axis in page


def test_scores_belong_to_the_continuations_beside_the_results(judged, armorm, prompts):
    """Score the files that were written once more, one row at a time."""
    from evaluation.reward.conversation import encode
    from evaluation.reward.judge_folder import check_judge
    from post_training.model_folder import load_tokenizer

    out, results = judged
    judge, tokenizer = open_judge(check_judge(armorm), "fp32", "cpu"), load_tokenizer(armorm)
    for name, scores in (("base", results.judges[0].base), ("continued", results.judges[0].continued)):
        lines = (out.parent / f"results_{name}.jsonl").read_text().splitlines()
        written = {line["id"]: line["continuation"] for line in map(json.loads, lines)}
        rows = [encode(tokenizer, prompt.text, written[prompt.key], 256) for prompt in read_prompts(prompts)]
        expected = np.concatenate([score_conversations(judge, [row], 256, "cpu") for row in rows])
        np.testing.assert_allclose(np.array([scores[axis] for axis in AXES]).T, expected[:, :5], atol=2e-5)
        np.testing.assert_allclose(scores["overall"], expected[:, -1], atol=2e-5)


def test_a_second_run_loads_nothing(judged, armorm, classifier, writers, prompts, monkeypatch, capsys):
    out, results = judged
    monkeypatch.setattr(Writer, "load", lambda self: pytest.fail("a model was loaded"))
    monkeypatch.setattr(Reader, "score_chunk", lambda self, chunk: pytest.fail("a judge was asked"))
    assert run(out, [armorm, classifier], *writers, prompts) == results
    printed = capsys.readouterr().out
    assert "statute_reference" in printed and "at equal length" in printed


def test_written_continuations_are_judged_alike(judged, tmp_path, armorm, prompts):
    """The files beside the results stand for the models."""
    out, results = judged
    files = [out.parent / f"results_{name}.jsonl" for name in ("base", "continued")]
    again = run(tmp_path / "again.json", [armorm], *files, prompts)
    assert again.judges[0].base == results.judges[0].base and again.judges[0].comparisons == results.judges[0].comparisons
    assert again.base.unfinished is None


def test_debiased_axes_are_another_set_of_scores(judged, tmp_path, armorm, prompts):
    out, results = judged
    files = [out.parent / f"results_{name}.jsonl" for name in ("base", "continued")]
    debiased = run(tmp_path / "debiased.json", [armorm], *files, prompts, "--axis-scores", "debiased").judges[0]
    raw = results.judges[0]
    assert debiased.base["overall"] == raw.base["overall"] and debiased.base[AXES[0]] != raw.base[AXES[0]]


def test_a_judge_that_was_interrupted_goes_on(judged, tmp_path, armorm, prompts, monkeypatch):
    out, results = judged
    monkeypatch.setattr("evaluation.reward.measure.CHUNK", 2)
    original, calls = Reader.score_chunk, []

    def interrupted(self, chunk):
        calls.append(chunk)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, chunk)

    monkeypatch.setattr(Reader, "score_chunk", interrupted)
    files = [out.parent / f"results_{name}.jsonl" for name in ("base", "continued")]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "results.json", [armorm], *files, prompts)
    assert not (tmp_path / "results.json").exists()
    again = run(tmp_path / "results.json", [armorm], *files, prompts).judges[0]
    assert len(calls) == 7  # six chunks, the fourth one twice
    for axis, values in results.judges[0].base.items():
        np.testing.assert_allclose(again.base[axis], values, atol=2e-5)


def test_a_model_against_itself(tmp_path, classifier, writers, prompts):
    results = run(tmp_path / "results.json", [classifier], writers[0], writers[0], prompts)
    assert [results.base.name, results.continued.name] == ["base", "continued"]
    assert all(row.ties == 1 and not row.real for row in results.judges[0].comparisons)


def test_one_prompt_has_no_interval(tmp_path, classifier, writers):
    path = tmp_path / "one.jsonl"
    path.write_text('{"prompt": "Soru?"}\n')
    row = run(tmp_path / "results.json", [classifier], *writers, path).judges[0].comparisons[0]
    assert row.interval is None and row.p_permutation is None and row.length_control is None and not row.real


def test_bad_input_stops_before_any_work(tmp_path, armorm, writers, prompts, monkeypatch):
    monkeypatch.setattr(Writer, "load", lambda self: pytest.fail("a model was loaded"))
    other = write_classifier(tmp_path / "other", axes=("style",))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "a" * 236}))  # fits the models, but not the judge with its template
    for judges, base, asked, message in (
        ([armorm, other], writers[0], prompts, "need the same axes"),
        ([tmp_path / "nothing"], writers[0], prompts, "is not a folder"),
        ([writers[0]], writers[0], prompts, "no head that scores"),
        ([armorm], armorm, prompts, "LlamaForRewardModelWithGating, which has no perplexity|give a causal language model"),
        ([armorm], writers[0], empty, "has no prompt"),
        ([armorm], writers[0], long, "alone has more than the 256 tokens"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "results.json", judges, base, writers[1], asked)
    assert not (tmp_path / "results.json").exists()
