"""`mecellem evaluate long-context`: encoders and masked language models on long real documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from evaluation.encoders.settings import EncoderSettings
from evaluation.long_context.settings import LongContextSettings
from mecellem.console import step
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call


def long_context(
    models: tyro.conf.Positional[tuple[str, ...]],
    texts: tuple[Path, ...] = (Path("data/corpus"),),
    needles: tuple[Path, ...] = (),
    out: Path = Path("data/long_context/results.json"),
    cache: Path | None = None,
    device: str = "auto",
    settings: LongContextSettings = LongContextSettings(),  # noqa: B008 (frozen)
    encoder: EncoderSettings = EncoderSettings(),  # noqa: B008 (frozen)
) -> None:
    """What models make of documents of up to 8,192 tokens: needles, the places a vector looks at, masks by place.

    Encoders: a made-up fact is put into real documents of one length, at one depth; each fact's question has to find its own
    document. And the cosine of a document to its own pieces, by their place, averaged over several orders of the pieces.
    Masked language models: accuracy and loss of hidden tokens by their place, and beside the very same tokens in short
    windows. A length beyond a model's context is marked as such; no text is ever cut.

    Args:
        models: folders (Hugging Face, sentence-transformers, model2vec), Megatron checkpoints, use or akana, each also as
            NAME=MODEL
        texts: .jsonl files (also .gz, .zst) with {"text": ...} a line, or corpus folders (their test split)
        needles: .jsonl files with {"text": a fact, "query": a question}; 24 Turkish ones are built in
        out: where all figures go (JSON); the pictures and their data go beside it
        cache: where finished lengths are kept, so that nothing is measured twice; beside the figures unless given
        device: auto, cpu, cuda or cuda:N
        settings: what is measured
        encoder: how encoders read texts
    """
    from evaluation.long_context.measure import measure_models
    from evaluation.long_context.plot import draw_all
    from evaluation.long_context.tables import print_results

    reads: list[Path | str] = [*models, *texts, *needles]
    with step(f"long context of {len(models)} model{'' if len(models) == 1 else 's'}", reads, [out]) as console:
        store = cache or out.parent / "cache"
        results = measure_models(models, texts, out, store, settings, encoder=encoder, needles=needles, device=device)
        for name, (picture, data) in draw_all(results).items():
            place = out.with_name(f"{out.stem}.{name}.png")
            with atomic_write(place, "wb") as handle:
                handle.write(picture)
            with atomic_write(place.with_suffix(".csv")) as handle:
                handle.write(data)
            console.print(f"picture {place}, its data {place.with_suffix('.csv').name}", markup=False)
        print_results(console, results)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem evaluate long-context`."""
    parse_and_call(long_context, argv, prog="mecellem evaluate long-context")
    return 0
