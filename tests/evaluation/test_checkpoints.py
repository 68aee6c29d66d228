from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from evaluation.checkpoints import compare, evaluate_run, rescore, select, selection_sentence
from evaluation.report import main as report
from evaluation.results import CheckpointScores, Comparison, EvaluationResults, Selection, SystemScores, TaskScores, read_record
from evaluation.tables import print_selection
from mecellem.console import console
from mecellem.errors import UserError
from megatron_recipes.retention import kept


@pytest.fixture
def results(evaluated_run) -> EvaluationResults:
    return read_record(evaluated_run / "evaluation" / "step_0000020" / "results.json", EvaluationResults, "")


def system(values: np.ndarray) -> SystemScores:
    """A system with these nDCG@10 per query on one task."""
    scores = TaskScores(
        ndcg_10=float(values.mean()), interval=(0, 1), mrr_10=0, recall_10=0, recall_100=None,
        per_query={str(number): float(value) for number, value in enumerate(values)},
    )  # fmt: skip
    return SystemScores(tasks={"t": scores}, mean_ndcg_10=float(values.mean()), seconds=0)


def with_scores(results: EvaluationResults, values: np.ndarray, floor: np.ndarray | None = None) -> EvaluationResults:
    """The same evaluation with other scores of the post-trained model and of random weights (0 unless given)."""
    scores = {"model_post_trained": system(values), "random_post_trained": system(0 * values if floor is None else floor)}
    return results.model_copy(update={"systems": results.systems | scores})


def row(step: int, results: EvaluationResults, folder: str) -> CheckpointScores:
    return CheckpointScores(
        step=step, tokens=None, checkpoint=f"c{step}", folder=folder, results="", sha256="", fill_mask_top1_mask_only=0,
        fill_mask_nll=10 / step, mean_pooled=0,
        post_trained=results.systems["model_post_trained"].mean_ndcg_10,
    )  # fmt: skip


def choose(results, small_model, values: dict[int, np.ndarray], again: float | None = None, floor=None) -> Selection:
    evaluations = [with_scores(results, value, floor) for value in values.values()]
    rows = [row(step, item, str(small_model)) for step, item in zip(values, evaluations, strict=True)]
    best = max(value.mean() for value in values.values())
    if floor is not None:
        best = values[max(values)].mean()  # the last step has the lowest fill-mask loss
    return select(rows, evaluations, lambda _: best if again is None else again)


def test_a_real_difference_is_claimed(results, small_model):
    base = np.random.default_rng(0).random(100) * 0.5
    found = choose(results, small_model, {10: base, 20: base + 0.1, 30: base + 0.05})
    assert found.best_step == 20 and found.distinguishable
    assert [item.real for item in found.comparisons] == [True, True]
    assert found.comparisons[0].difference == pytest.approx(0.1)
    assert found.confidence == pytest.approx(0.975), "two comparisons share the 5%"
    assert "better than every other" in found.sentence


def test_noise_is_not_claimed(results, small_model):
    rng = np.random.default_rng(1)
    values = {step: rng.random(60) for step in (10, 20, 30)}
    found = choose(results, small_model, values)
    assert found.best_step == max(values, key=lambda step: values[step].mean()), "the highest mean still decides"
    assert not found.distinguishable and "not distinguishable" in found.sentence and "highest mean" in found.rule


def test_of_equal_means_the_earlier_step(results, small_model):
    same = np.linspace(0, 1, 50)
    assert choose(results, small_model, {10: same, 20: same}).best_step == 10


def test_pairing_sees_what_separate_intervals_hide():
    rng = np.random.default_rng(2)
    base = rng.random(80)
    found = compare(system(base + 0.02), system(base), 1, 0.95)
    assert found.real and found.interval[0] == pytest.approx(0.02)


def test_sentences():
    alike = Comparison(step=3, difference=0.1, interval=(-0.1, 0.3), real=False)
    above = Comparison(step=0, difference=0.2, interval=(0.1, 0.3), real=True)
    assert "only checkpoint" in selection_sentence(7, 7, above, [])
    assert "not distinguishable from steps 3, 3" in selection_sentence(7, 7, above, [alike, alike])


def test_below_random_weights_retrieval_does_not_choose(results, small_model):
    base = np.random.default_rng(3).random(100) * 0.5
    values = {10: base + 0.2, 20: base + 0.1, 30: base}
    found = choose(results, small_model, values, floor=base + 0.3)
    assert (found.peak_step, found.best_step, found.chosen_by) == (10, 30, "fill-mask")
    assert found.over_random.difference == pytest.approx(-0.1) and "random weights" in found.sentence
    above = choose(results, small_model, values)
    assert (above.peak_step, above.best_step, above.chosen_by) == (10, 10, "retrieval")


def test_a_winner_that_does_not_come_back_is_refused(results, small_model):
    with pytest.raises(UserError, match="after loading it again"):
        choose(results, small_model, {10: np.linspace(0, 1, 50)}, again=0.1)


def test_the_whole_run(evaluated_run, small_corpus, settings):
    folder = evaluated_run / "evaluation"
    selection = read_record(folder / "selection.json", Selection, "")
    assert [item.step for item in selection.checkpoints] == [20, 40]
    assert [item.tokens for item in selection.checkpoints] == [20_000, 40_000]
    best = {item.step: item for item in selection.checkpoints}[selection.best_step]
    assert best.post_trained == selection.score
    highest = max(selection.checkpoints, key=lambda item: item.post_trained)
    assert selection.peak_step == highest.step
    assert selection.rescored == pytest.approx(selection.score, abs=1e-4)
    assert rescore(folder / f"step_{best.step:07d}" / "embedding", small_corpus, settings, "cpu") == pytest.approx(
        selection.score, abs=1e-4
    )
    [(name, reason)] = kept(evaluated_run).items()  # so that `train --keep-checkpoints` leaves it
    assert name == f"step_{selection.best_step:07d}" and reason.startswith("chosen by mecellem select by ")


def test_a_second_call_measures_nothing_and_a_new_checkpoint_is_exported(evaluated_run, small_corpus, settings, tmp_path):
    run = shutil.copytree(evaluated_run, tmp_path / "run")
    exported = []

    def export(checkpoint, folder):
        exported.append(checkpoint.name)
        shutil.copytree(checkpoint, folder)

    first = json.loads((run / "evaluation" / "step_0000020" / "results.json").read_text())
    (run / "checkpoints" / "step_0000040" / "new").write_text("trained again")
    evaluate_run(run, small_corpus, run / "evaluation", settings, device="cpu", export=export)
    assert exported == ["step_0000040"]
    again = json.loads((run / "evaluation" / "step_0000020" / "results.json").read_text())
    assert {key: first[key] for key in ("systems", "fill_mask")} == {key: again[key] for key in ("systems", "fill_mask")}


def test_without_titles_fill_mask_alone_is_measured_and_chooses(evaluated_run, plain_corpus, settings, tmp_path, capsys):
    run = shutil.copytree(evaluated_run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    selection = evaluate_run(run, plain_corpus, run / "evaluation", settings, device="cpu", export=shutil.copytree)
    losses = {row.step: row.fill_mask_nll for row in selection.checkpoints}
    assert selection.chosen_by == "fill-mask" and selection.best_step == min(losses, key=lambda step: losses[step])
    assert "allows no retrieval task" in selection.sentence and selection.peak_step is selection.score is None
    assert read_record(run / "evaluation" / "selection.json", Selection, "") == selection
    print_selection(console(), selection)
    assert selection.sentence in capsys.readouterr().out
    assert report([str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Retrieval was not measured" in page and "by fill-mask loss" in page
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["evaluation"]["retrieval"] == {} and summary["corpus"] is None


def test_bad_input(run, small_corpus, tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        evaluate_run(tmp_path, small_corpus, tmp_path / "out")
    with pytest.raises(UserError, match="has no step_NNNNNNN"):
        evaluate_run(run, small_corpus, tmp_path / "out")
    (run / "checkpoints" / "step_0000010").mkdir(parents=True)
    with pytest.raises(UserError, match="not a corpus folder"):
        evaluate_run(run, tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()
