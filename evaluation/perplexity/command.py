"""`mecellem evaluate perplexity`: one or more models on the same held-out documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from evaluation.perplexity.settings import PerplexitySettings
from mecellem.console import step
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call


def perplexity(
    models: tyro.conf.Positional[tuple[Path, ...]],
    texts: tuple[Path, ...] = (Path("data/corpus"),),
    out: Path = Path("data/perplexity/results.json"),
    plot: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    settings: PerplexitySettings = PerplexitySettings(),  # noqa: B008 (frozen)
) -> None:
    """Perplexity and bits per byte of causal language models on fixed documents, by sub-domain and overall.

    Models are Hugging Face folders and Megatron checkpoints (.../checkpoints/step_NNNNNNN), in any mix; all others are
    compared with the first. Every token of a document is scored once, in a window that slides on by --stride; in front of
    a document stands the tokenizer's BOS or, where it has none (Qwen3), its EOS, so that the first token is scored too, as
    lm-evaluation-harness does. Bits per byte are over the texts' UTF-8, so models with different tokenizers compare.
    Intervals (95%) redraw documents, the same ones for all models.

    Args:
        models: model folders, the one to compare with first
        texts: .jsonl files (also .gz, .zst) with {"text": ...} a line, or corpus folders (their test split)
        out: where all figures go (JSON)
        plot: where the picture goes (PNG); beside the figures unless given
        cache: where finished models are kept, so that nothing is scored twice; beside the figures unless given
        device: auto, cpu, cuda or cuda:N
        settings: how it is measured
    """
    from evaluation.perplexity.measure import measure_models
    from evaluation.perplexity.plot import draw
    from evaluation.perplexity.tables import print_results

    plot = plot or out.with_suffix(".png")
    reads = [*models, *texts]
    with step(f"perplexity of {len(models)} model{'' if len(models) == 1 else 's'}", reads, writes=[out, plot]) as console:
        results = measure_models(models, texts, out, cache or out.parent / "cache", settings, device)
        with atomic_write(plot, "wb") as handle:
            handle.write(draw(results))
        print_results(console, results)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem evaluate perplexity`."""
    parse_and_call(perplexity, argv, prog="mecellem evaluate perplexity")
    return 0
