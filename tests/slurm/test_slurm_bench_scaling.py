"""The scaling model: what it is told comes back, unseen points follow from it, and its errors are those it admits."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_recipes.plan import flops_per_token
from slurm.bench.scaling import FEWEST, accuracy, amounts, first_step, fit
from slurm.bench.sweep import Sweep

RATES = {  # seconds a unit of a machine that never was
    "arithmetic, bf16": 1 / 400,
    "calls of layers": 2e-5,
    "constant": 0.01,
    "logarithm of nodes": 0.002,
    "tensor parallel, within a node": 1 / 300,
    "data parallel, within a node": 1 / 200,
    "data parallel, between nodes": 1 / 40,
}


def points(nodes=(1, 2, 4, 8)):
    axes = {
        "layout": {"dp": [], "tp2": ["--parallel.tensor", 2]},
        "batch": {"b12": ["--schedule.micro-batch-size", 12], "b24": ["--schedule.micro-batch-size", 24]},
    }
    return Sweep(recipe="mursit_base", nodes=list(nodes), ranks_per_node=4, axes=axes).points()


PARTS = {point.name: (point.nodes, amounts(point.plan, point.nodes)) for point in points()}


def true_seconds(parts):
    return sum(RATES[name] * value for name, value in parts.items())


def test_amounts_are_the_plans():
    point = next(point for point in points() if point.name == "n2-tp2-b12")
    parts, config = amounts(point.plan, 2), point.plan.config
    assert first_step(point.plan).micro_batches == 4608 // (12 * 4)
    tflop = flops_per_token(config, 1024) * config.tokens_per_step / 8 / 1e12
    assert parts["arithmetic, bf16"] == pytest.approx(tflop)
    assert parts["calls of layers"] == config.model.num_layers * 96
    tokens = config.tokens_per_step / 4
    assert parts["tensor parallel, within a node"] == pytest.approx(4 * tokens * 768 * 2 * 22 / 1e9)
    assert "data parallel, between nodes" in parts and parts["logarithm of nodes"] == 1.0


def test_a_machine_of_that_form_is_found_again_and_predicted_beyond_what_was_measured():
    seen = [(amounts(point.plan, point.nodes), point) for point in points((1, 2, 4))]
    found = fit([parts for parts, _ in seen], [true_seconds(parts) for parts, _ in seen])
    for point in points((8, 16)):
        parts = amounts(point.plan, point.nodes)
        assert found.seconds(parts) == pytest.approx(true_seconds(parts), rel=0.02), point.name


def test_parts_that_nothing_measured_has_are_not_guessed():
    seen = [amounts(point.plan, 1) for point in points((1,)) if "tp2" not in point.name]
    found = fit(seen, [true_seconds(parts) for parts in seen])
    unseen = next(point for point in points((1,)) if "tp2" in point.name)
    assert found.seconds(amounts(unseen.plan, 1)) is None


@settings(deadline=None, max_examples=25)
@given(noise=st.lists(st.floats(-0.05, 0.05), min_size=16, max_size=16))
def test_rates_are_never_negative_and_errors_stay_of_the_size_of_the_noise(noise):
    measured = {}
    for (name, (nodes, parts)), error in zip(PARTS.items(), noise, strict=True):
        measured[name] = (nodes, parts, true_seconds(parts) * (1 + error))
    assert min(fit([m[1] for m in measured.values()], [m[2] for m in measured.values()]).rates.values()) >= 0
    told = accuracy(measured)
    assert len(told.left_out) == 16 and told.typical is not None and told.typical < 0.2
    assert set(told.beyond) == {name for name in measured if name.startswith("n8")}


def test_accuracy_is_that_of_points_the_fit_has_not_seen():
    measured = {name: (nodes, parts, true_seconds(parts)) for name, (nodes, parts) in PARTS.items()}
    nodes, parts, seconds = measured["n2-dp-b24"]
    measured["n2-dp-b24"] = (nodes, parts, 1.5 * seconds)  # a slow node, say
    told = accuracy(measured)
    assert told.left_out["n2-dp-b24"] == pytest.approx(1 / 1.5 - 1, abs=0.03)


def test_few_points_say_nothing():
    few = {name: (nodes, parts, 1.0) for name, (nodes, parts) in list(PARTS.items())[:FEWEST]}
    told = accuracy(few)
    assert told.typical is None and not told.beyond and math.isclose(told.unseen, 0)
