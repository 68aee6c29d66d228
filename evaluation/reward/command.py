"""`mecellem evaluate reward`: what two models write, scored axis by axis by a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.reward.settings import GenerationSettings, JudgeSettings
from mecellem.console import step
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call


def reward(
    judge: tuple[Path, ...],
    base: Path,
    continued: Path,
    prompts: Path,
    out: Path = Path("data/reward/results.json"),
    plot: Path | None = None,
    cache: Path | None = None,
    prompt_field: str = "prompt",
    device: str = "auto",
    generation: GenerationSettings = GenerationSettings(),  # noqa: B008 (frozen)
    judging: JudgeSettings = JudgeSettings(),  # noqa: B008 (frozen)
) -> None:
    """Judge what two causal models write after the same prompts, axis by axis, and say whether the difference is real.

    The judge is a reward model's folder: ArmoRM's layout (linear head, gating network, debiasing matrix, on any backbone
    that transformers knows) or a sequence classifier of transformers with one label an axis; code in the folder is never
    run. Both models continue every prompt; intervals (95%) and tests are paired over prompts, p-values corrected after
    Holm over the axes. Reward models like long answers: lengths are reported, and the difference at equal length.

    Args:
        judge: reward model folders, one or more with the same axes
        base: the model to compare with: a Hugging Face folder, a Megatron checkpoint, or a .jsonl with {"id" or "prompt",
            "continuation"} a line
        continued: the other model, in the same ways
        prompts: .jsonl (also .gz, .zst) with {"prompt": ...} a line, and an "id" if you like
        out: where all figures go (JSON); the continuations lie beside it
        plot: where the picture goes (PNG, its data beside it as CSV); beside the figures unless given
        cache: where finished batches are kept, so that nothing is written or scored twice; beside the figures unless given
        prompt_field: the field of a line that holds the prompt
        device: auto, cpu, cuda or cuda:N
        generation: how models continue prompts
        judging: how continuations are scored
    """
    from evaluation.reward.measure import measure_reward
    from evaluation.reward.plot import draw, points_csv
    from evaluation.reward.tables import print_results

    plot = plot or out.with_suffix(".png")
    data = plot.with_suffix(".csv")
    with step(f"{continued} against {base}, judged", [*judge, base, continued, prompts], writes=[out, plot, data]) as console:
        results = measure_reward(
            judge, base, continued, prompts, out, cache or out.parent / "cache", generation, judging, prompt_field, device
        )
        with atomic_write(plot, "wb") as handle:
            handle.write(draw(results))
        with atomic_write(data) as handle:
            handle.write(points_csv(results))
        print_results(console, results)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem evaluate reward`."""
    parse_and_call(reward, argv, prog="mecellem evaluate reward")
    return 0
