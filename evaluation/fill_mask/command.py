"""`mecellem evaluate fill-mask`: one or more masked language models on the same held-out documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from evaluation.fill_mask.settings import FillMaskSettings
from mecellem.console import step
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call


def fill_mask(
    models: tyro.conf.Positional[tuple[Path, ...]],
    texts: tuple[Path, ...] = (Path("data/corpus"),),
    train: tuple[Path, ...] = (),
    cloze: tuple[Path, ...] = (),
    out: Path = Path("data/fill_mask/results.json"),
    plot: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    settings: FillMaskSettings = FillMaskSettings(),  # noqa: B008 (frozen)
) -> None:
    """Fill-mask accuracy, pseudo-perplexity and legal cloze of masked language models, by domain, beside unigrams.

    Models are Hugging Face folders and Megatron checkpoints (.../checkpoints/step_NNNNNNN), in any mix; all others are
    compared with the first. Masked tokens (15%, 80/10/10) are those of a model's own tokenizer. Masked words are the same for
    all models: all pieces of a word are hidden, it is right when all pieces are. Pseudo-perplexity is the
    pseudo-log-likelihood of sentences, masked left to right within words (Kauf and Ivanova 2023), per word and per UTF-8
    byte. The cloze hides one legal term of a sentence. Intervals (95%) redraw documents.

    Args:
        models: model folders, the one to compare with first
        texts: .jsonl files (also .gz, .zst) with {"text": ...} a line, or corpus folders (their test split)
        train: what the unigram baseline counts, files or corpus folders; unless given the train split of the corpus
            folders in --texts, else the texts themselves
        cloze: .jsonl files with {"text": "... [MASK] ...", "answer": "..."} and, if wanted, "candidates"; unless given,
            items are made from the texts with Turkish legal terms
        out: where all figures go (JSON)
        plot: where the picture goes (PNG), with its data beside it (CSV); beside the figures unless given
        cache: where finished measures are kept, so that nothing is scored twice; beside the figures unless given
        device: auto, cpu, cuda or cuda:N
        settings: how it is measured
    """
    from evaluation.fill_mask.measure import measure_models
    from evaluation.fill_mask.plot import draw
    from evaluation.fill_mask.tables import print_results

    plot = plot or out.with_suffix(".png")
    data = plot.with_suffix(".csv")
    reads, writes = [*models, *texts, *train, *cloze], [out, data, plot]
    with step(f"fill-mask of {len(models)} model{'' if len(models) == 1 else 's'}", reads, writes) as console:
        store = cache or out.parent / "cache"
        results = measure_models(models, texts, out, store, settings, train=train, cloze=cloze, device=device)
        picture, figures = draw(results)
        with atomic_write(plot, "wb") as handle:
            handle.write(picture)
        with atomic_write(data) as handle:
            handle.write(figures)
        print_results(console, results)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem evaluate fill-mask`."""
    parse_and_call(fill_mask, argv, prog="mecellem evaluate fill-mask")
    return 0
