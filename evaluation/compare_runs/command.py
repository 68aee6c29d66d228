"""`mecellem compare-runs`: the gate that a change of precision or layout has to pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call

if TYPE_CHECKING:
    from rich.console import Console

    from evaluation.compare_runs.results import RunComparison

LOWER = (
    "B's loss is lower than A's. That is either chance (compare two runs of A's kind, in two layouts, to see how far chance "
    "goes at this learning rate) or a B that sees what it should predict; neither shows that B trains like A."
)


def compare_runs(
    a: tyro.conf.Positional[Path],
    b: tyro.conf.Positional[Path],
    warmup_tokens: int | None = None,
    max_gap: float = 0.01,
    max_grad_norm_ratio: float = 1.25,
    smooth_steps: int = 0,
    allow: tuple[str, ...] = (),
    json: Path | None = None,
    plot: Path | None = None,
) -> bool:
    """Say whether run B trains like run A: FP8 beside BF16, one layout beside another. Exit code 0: it does, 1: it does not.

    Both must have trained on the same batches: same corpora, curriculum, seed and steps. They may differ in precision,
    fp8.*, layer_spec, parallel.* and in how often they write; --allow names more. Passing means: no number is missing,
    B got as far as A, the smoothed loss gap stays within --max-gap after warm-up (up and down: a lower loss can be a leak)
    and does not grow, gradient norms are alike and do not jump, and the last validation losses agree. How far two runs
    drift apart by chance depends on the learning rate: from random weights, chance alone can exceed 0.01.

    Args:
        a: folder of the run to compare with, usually the one in BF16
        b: folder of the run in question
        warmup_tokens: tokens before which nothing is compared; A's own warm-up unless given (a decoder's: its first stage's)
        max_gap: largest difference of the smoothed losses, in nats per token
        max_grad_norm_ratio: largest ratio of gradient norms, up or down (median over steps)
        smooth_steps: steps that the loss gap is averaged over; 0: 5% of the steps, at least 10
        allow: further settings that may differ, by dotted name or its beginning (optimizer.lr, optimizer)
        json: where the figures go; B/compare_runs.json unless given
        plot: where the picture goes (PNG); B/compare_runs.png unless given
    """
    json, plot = json or b / "compare_runs.json", plot or b / "compare_runs.png"
    if smooth_steps < 0:
        raise UserError(f"--smooth-steps {smooth_steps} must not be negative")
    with step(f"compare {b} with {a}", reads=[a, b], writes=[json, plot]) as console:
        found = compare(a, b, warmup_tokens, max_gap, max_grad_norm_ratio, smooth_steps, allow, plot)
        with atomic_write(json) as handle:
            handle.write(found.model_dump_json(indent=1) + "\n")
        print_comparison(console, found)
    return found.passed


def compare(
    a: Path,
    b: Path,
    warmup_tokens: int | None,
    max_gap: float,
    max_grad_norm_ratio: float,
    smooth_steps: int,
    allow: Sequence[str],
    plot: Path,
) -> RunComparison:
    """Compare two run folders and draw `plot`; flags as in `compare_runs`. Raises `UserError` before anything is written."""
    from evaluation.compare_runs.criteria import Limits, criteria, pair, window
    from evaluation.compare_runs.plot import draw
    from evaluation.compare_runs.results import RunComparison
    from evaluation.compare_runs.same_data import differences, require_same_data
    from evaluation.run_folder import metrics_of, training_lines
    from megatron_recipes.run_folder import read_run

    limits = Limits(max_gap, max_grad_norm_ratio)
    settings, rows = [read_run(run) for run in (a, b)], [metrics_of(run) for run in (a, b)]
    found = differences(settings[0], settings[1], allow)
    require_same_data(a, b, found)
    for run, lines in zip((a, b), rows, strict=True):
        if not training_lines(lines):
            raise UserError(f"{run / 'metrics.jsonl'} has no training step yet: wait for the first, or resume the run")
    warmup = own_warmup(a, settings[0]) if warmup_tokens is None else warmup_tokens
    runs = pair(rows[0], rows[1], warmup)
    compared = runs.steps[runs.after_warmup]
    width = window(len(compared), smooth_steps)
    answers = criteria(runs, rows[0], rows[1], limits, width)
    picture = draw(runs, (a.resolve().name, b.resolve().name), limits, warmup, width)
    with atomic_write(plot, "wb") as handle:
        handle.write(picture)
    return RunComparison(
        a=str(a),
        b=str(b),
        passed=all(item.passed for item in answers),
        steps=len(compared),
        first_step=int(compared[0]),
        last_step=int(compared[-1]),
        warmup_tokens=warmup,
        smoothed_over=width,
        criteria=answers,
        differences=found,
    )


def own_warmup(run: Path, settings: dict[str, Any]) -> int:
    """Tokens of warm-up that the settings of a run name; of a decoder, whose rates are its curriculum's, the first stage's."""
    from megatron_recipes.data.curriculum import Curriculum
    from megatron_recipes.run_folder import FILE

    curriculum = settings.get("curriculum")
    if curriculum is None:
        return int(settings["config"]["schedule"]["warmup_tokens"])
    return Curriculum.parse(curriculum, run / FILE).stages[0].lr.warmup_tokens


def print_comparison(console: Console, found: RunComparison) -> None:
    """The differences, a table of criteria, and the verdict."""
    from rich.table import Table

    from evaluation.compare_runs.same_data import described

    for item in found.differences:
        console.print(f"differs {described(item)}", markup=False)
    table = Table(
        title=f"steps {found.first_step} to {found.last_step}, after {found.warmup_tokens:,} tokens of warm-up",
        title_justify="left",
    )
    for name in ("criterion", "value", "passes", "", "what it is"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for criterion in found.criteria:
        table.add_row(
            criterion.name,
            shown_value(criterion.value),
            criterion.limit,
            "pass" if criterion.passed else "FAIL",
            criterion.meaning,
        )
    console.print(table)
    gap = next(item for item in found.criteria if item.name == "loss gap")
    if not gap.passed and gap.value is not None and gap.value < 0:
        console.print(LOWER, markup=False)
    console.print(
        f"{'PASS' if found.passed else 'FAIL'}: B {'trains' if found.passed else 'does not train'} like A", markup=False
    )


def shown_value(value: float | None) -> str:
    """Counts whole, other figures with four digits, a dash for what could not be measured."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem compare-runs`."""
    return 0 if parse_and_call(compare_runs, argv, prog="mecellem compare-runs") else 1
