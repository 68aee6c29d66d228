"""The rule, by hand: real differences, noise, ties, random weights, and whether rankings agree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from evaluation.fill_mask.results import FillMaskCounts, FillMaskScores
from evaluation.leaderboard.results import TaskResult
from evaluation.selection.agreement import agreement, agreements
from evaluation.selection.choice import choose, compare, rule, selection_sentence
from evaluation.selection.results import CheckpointScores, Comparison, SystemScores
from evaluation.selection.work import system_scores


def system(*tasks: np.ndarray) -> SystemScores:
    """A system with these nDCG@10 per query, a task each."""
    results = {}
    for number, values in enumerate(tasks):
        per_item = {"default": {str(query): float(value) for query, value in enumerate(values)}}
        results[f"t{number}"] = TaskResult(
            task=f"t{number}", category="retrieval", revision="1", main_metric="ndcg_at_10", main_score=float(values.mean()),
            metrics={}, per_item_metric="ndcg_at_10", per_item=per_item, interval=(0, 1), items=len(values), texts=0, empty=0,
            truncated=0, tokens_cut=0, seconds=0, hardware="",
        )  # fmt: skip
    return system_scores(results)


def masks(nll: float) -> FillMaskScores:
    counts = FillMaskCounts(documents=1, masked=1, top1=0, top5=0, top1_mask_only=0, nll=nll)
    return FillMaskScores(probability=0.15, corruption="80/10/10", all=counts, by_source={})


def row(step: int, trained: SystemScores, pooled: SystemScores | None = None, nll: float | None = None) -> CheckpointScores:
    return CheckpointScores(
        step=step, tokens=None, checkpoint=f"c{step}", folder="", sha256="", fill_mask=masks(10 / step if nll is None else nll),
        mean_pooled=pooled or trained, post_trained=trained, training=None,
    )  # fmt: skip


def chosen(values: dict[int, np.ndarray], floor: np.ndarray | None = None):
    rows = [row(step, system(value)) for step, value in values.items()]
    first = next(iter(values.values()))
    return choose(rows, system(0 * first if floor is None else floor), "post_trained")


def test_means_weigh_tasks_and_not_queries():
    assert system(np.ones(10), np.zeros(90)).mean == 0.5


def test_a_real_difference_is_claimed():
    base = np.random.default_rng(0).random(100) * 0.5
    found = chosen({10: base, 20: base + 0.1, 30: base + 0.05})
    assert found.best.step == 20 and found.chosen_by == "retrieval" and found.distinguishable
    assert [item.real for item in found.comparisons] == [True, True]
    assert found.comparisons[0].difference == pytest.approx(0.1)
    assert found.confidence == pytest.approx(0.975), "two comparisons share the 5%"
    assert "better after post-training than every other" in found.sentence


def test_noise_is_not_claimed():
    rng = np.random.default_rng(1)
    values = {step: rng.random(60) for step in (10, 20, 30)}
    found = chosen(values)
    assert found.best.step == max(values, key=lambda step: values[step].mean()), "the highest mean still decides"
    assert not found.distinguishable and "not distinguishable" in found.sentence and "highest mean" in rule(found.metric)


def test_of_equal_means_the_earlier_step():
    same = np.linspace(0, 1, 50)
    assert chosen({10: same, 20: same}).best.step == 10
    assert chosen({20: same, 10: same}).best.step == 10


def test_of_equal_losses_the_earlier_step():
    rows = [row(step, system(np.zeros(9)), nll=3.0) for step in (30, 10, 20)]
    found = choose(rows, None, "post_trained")
    assert (found.best.step, found.chosen_by, found.peak) == (10, "fill-mask", None) and not found.distinguishable


def test_pairing_sees_what_separate_intervals_hide():
    base = np.random.default_rng(2).random(80)
    found = compare(system(base + 0.02), system(base), 1, 0.95)
    assert found.real and found.interval[0] == pytest.approx(0.02)


def test_below_random_weights_retrieval_does_not_choose():
    base = np.random.default_rng(3).random(100) * 0.5
    values = {10: base + 0.2, 20: base + 0.1, 30: base}
    found = chosen(values, floor=base + 0.3)
    assert (found.peak.step, found.best.step, found.chosen_by) == (10, 30, "fill-mask")
    assert found.over_random.difference == pytest.approx(-0.1) and "random weights" in found.sentence
    above = chosen(values)
    assert (above.peak.step, above.best.step, above.chosen_by) == (10, 10, "retrieval")


def test_sentences():
    alike = Comparison(step=3, difference=0.1, interval=(-0.1, 0.3), real=False)
    above = Comparison(step=0, difference=0.2, interval=(0.1, 0.3), real=True)
    assert "only checkpoint" in selection_sentence(7, 7, above, [], "post_trained")
    assert "not distinguishable from steps 3, 3" in selection_sentence(7, 7, above, [alike, alike], "post_trained")
    below = Comparison(step=0, difference=-0.2, interval=(-0.3, -0.1), real=True)
    assert "post-training" not in selection_sentence(7, 3, below, [alike], "mean_pooled")


# ---- do rankings agree


def test_tau_and_its_interval():
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 0.01, (5, 200))
    levels = np.array([0.1, 0.2, 0.3, 0.4, 0.5])[:, None]
    same = agreement("a", [levels + noise], "b", [2 * levels + rng.normal(0, 0.01, (5, 200))])
    assert same.tau == pytest.approx(1) and same.interval == pytest.approx((1, 1)) and "much as b does" in same.sentence
    turned = agreement("a", [levels[::-1] + noise], "b", [levels + noise])
    assert turned.tau == pytest.approx(-1) and "against the order of b" in turned.sentence
    unclear = agreement("a", [rng.random((5, 30))], "b", [rng.random((5, 30))])
    assert unclear.interval[0] < 0 < unclear.interval[1] and "do not show" in unclear.sentence


def test_tau_is_scipys_on_the_means_over_tasks():
    rng = np.random.default_rng(5)
    one, other = ([rng.random((6, 20)), rng.random((6, 9))] for _ in range(2))
    found = agreement("a", one, "b", other)
    means = [np.mean([part.mean(axis=1) for part in parts], axis=0) for parts in (one, other)]
    assert found.tau == pytest.approx(kendalltau(*means).statistic)
    assert found.interval[0] <= found.tau <= found.interval[1]


def test_queries_are_redrawn_in_pairs():
    values = np.random.default_rng(6).random((4, 25))
    found = agreement("a", [values], "b", [values])
    assert found.tau == pytest.approx(1) and found.interval == pytest.approx((1, 1)), "whatever the queries"


def test_equal_checkpoints_have_no_tau():
    found = agreement("a", [np.zeros((3, 10))], "b", [np.random.default_rng(7).random((3, 10))])
    assert found.tau is found.interval is None and "cannot be compared as rankings" in found.sentence


def test_the_loss_ranks_from_low_to_high_and_stays_as_it_is():
    values = np.random.default_rng(8).random(50)
    rows = [row(step, system(values + step / 100), nll=10 / step) for step in (10, 20, 30)]
    pooled, loss = agreements(rows, "post_trained")
    assert (pooled.ranking, loss.ranking) == ("mean-pooled retrieval", "fill-mask loss")
    assert pooled.tau == pytest.approx(1) == loss.tau and "lower is better" in loss.sentence
    (only,) = agreements(rows, "mean_pooled")
    assert only.ranking == "fill-mask loss"
    assert agreements([row.model_copy(update={"post_trained": None}) for row in rows], "post_trained") == []
