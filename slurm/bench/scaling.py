"""A model of the time of a step that predicts points nobody measured, and says how far off it is on those that were.

A step is a sum of what every rank does, each part with a rate that the measurements decide: arithmetic (a rate for every
precision), calls of layers (what a micro batch costs however small it is), bytes through tensor, context and data
parallelism within a node and between nodes, and a constant that grows with the logarithm of the nodes (waiting for one
another). Rates cannot be negative: non-negative least squares on relative errors (Lawson & Hanson 1974), so that fast
points count as much as slow ones. The amounts come from the plan's formulas (Narayanan et al. 2021, arXiv 2104.04473,
sections 3 and 4), not from the measurements.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from megatron_recipes.config import EncoderRun
from megatron_recipes.plan import Plan, flops_per_token
from megatron_recipes.plan.decoder import DecoderPlan
from megatron_recipes.plan.parts import element_bytes

FEWEST = 4  # points below which a fit says nothing


@dataclass(frozen=True, slots=True)
class FirstStep:
    """What the first step of a plan does: tokens of the global batch, tokens of a sequence, micro batches of a rank."""

    tokens: int
    length: int
    micro_batches: int


def first_step(plan: Plan) -> FirstStep:
    """Of an encoder's run, or of a decoder's first stage."""
    config = plan.config
    if isinstance(config, EncoderRun):
        schedule, length = config.schedule, config.data.sequence_length
        micro = schedule.global_batch_size // (schedule.micro_batch_size * plan.data_parallel)
        return FirstStep(config.tokens_per_step, length, micro)
    assert isinstance(plan, DecoderPlan)
    stage = plan.curriculum.stages[0]
    rows = plan.config.micro_batch_tokens // stage.seq_len
    return FirstStep(stage.global_batch_tokens, stage.seq_len, stage.sequences_per_step // (rows * plan.data_parallel))


def amounts(plan: Plan, nodes: int) -> dict[str, float]:
    """What one rank does in a step, by kind: TFLOP, calls of layers, GB, and the constants."""
    config, step = plan.config, first_step(plan)
    parallel, model = config.parallel, config.model
    ranks, width = plan.machine.gpus, element_bytes(config)
    tp, pp, cp, dp = parallel.tensor, parallel.pipeline, parallel.context, plan.data_parallel
    here = ranks // nodes  # ranks of a node: tensor parallelism is innermost, data parallelism outside of it, then pipelines
    bubble = 1 + (pp - 1) / step.micro_batches
    layers = model.num_layers / pp * step.micro_batches
    rank_tokens = step.tokens / (dp * cp)  # that pass through each of a rank's layers
    found = {
        f"arithmetic, {config.precision}": flops_per_token(config, step.length) * step.tokens / ranks * bubble / 1e12,
        "calls of layers": layers * bubble,
        "constant": 1.0,
        "logarithm of nodes": math.log2(nodes),
    }

    def moved(kind: str, gigabytes: float, span: int) -> None:
        """`span`: consecutive ranks over which the group is spread."""
        where = "within a node" if span <= here else "between nodes"
        found[f"{kind}, {where}"] = gigabytes / 1e9

    state = rank_tokens * model.hidden_size * width * model.num_layers / pp
    if tp > 1:  # four all-reduces a layer, or as much in reduce-scatters and all-gathers
        moved("tensor parallel", 4 * state * 2 * (tp - 1) / tp, tp)
    if cp > 1:  # keys and values forward and back, their gradients
        moved("context parallel", 4 * state * (cp - 1), tp * cp)
    if dp * cp > 1:  # gradients are reduced in FP32, weights gathered in the training's precision
        group = dp * cp
        moved("data parallel", plan.memory.weights / width * (4 + width) * (group - 1) / group, tp * group)
    return found


@dataclass(frozen=True, slots=True)
class Fit:
    """Rates (seconds a unit) of the kinds of amounts."""

    rates: Mapping[str, float]

    def seconds(self, parts: Mapping[str, float]) -> float | None:
        """Of a step; None where a part of any size was in no measured point."""
        if any(value and name not in self.rates for name, value in parts.items()):
            return None
        return sum(self.rates[name] * value for name, value in parts.items() if value)


def fit(parts: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> Fit:
    """Rates that explain measured steps, least squares of relative errors, none of them negative."""
    from scipy.optimize import nnls

    names = sorted({name for part in parts for name, value in part.items() if value})
    matrix = np.array([[part.get(name, 0.0) for name in names] for part in parts])
    times = np.array(seconds)[:, None]
    weighted = matrix / times
    scale = np.linalg.norm(weighted, axis=0)
    rates, _ = nnls(weighted / scale, np.ones(len(parts)))
    return Fit(dict(zip(names, (rates / scale).tolist(), strict=True)))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Relative errors of predictions of measured points that the fit had not seen: (predicted - measured) / measured."""

    left_out: Mapping[str, float]  # point -> error, each left out of the fit in turn
    beyond: Mapping[str, float]  # point -> error, of the most nodes, from a fit of fewer
    unseen: int  # points that could not be predicted without themselves: the only ones of their kind

    @property
    def typical(self) -> float | None:
        """The median size of the errors of points left out."""
        return statistics.median(map(abs, self.left_out.values())) if self.left_out else None


def accuracy(points: Mapping[str, tuple[int, Mapping[str, float], float]]) -> Accuracy:
    """How far off predictions are. `points`: name -> nodes, amounts, measured seconds of a step."""

    def errors(seen: Sequence[str], hidden: Sequence[str]) -> dict[str, float]:
        if len(seen) < FEWEST:
            return {}
        found = fit([points[name][1] for name in seen], [points[name][2] for name in seen])
        predicted = {name: found.seconds(points[name][1]) for name in hidden}
        return {name: value / points[name][2] - 1 for name, value in predicted.items() if value is not None}

    left_out: dict[str, float] = {}
    for name in points:
        left_out |= errors([other for other in points if other != name], [name])
    most = max((nodes for nodes, _, _ in points.values()), default=1)
    fewer = [name for name, (nodes, _, _) in points.items() if nodes < most]
    beyond = errors(fewer, [name for name in points if name not in fewer])
    return Accuracy(left_out, beyond, len(points) - len(left_out) if len(points) > FEWEST else 0)
