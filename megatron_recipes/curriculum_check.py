"""`mecellem curriculum check FILE`: a curriculum against its corpora, before a GPU is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mecellem.console import step
from mecellem.errors import UserError
from mecellem.flags import parse_and_call
from megatron_recipes.data.corpus import TokenCorpus
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.data.curriculum_stage import LearningRate, Stage, short
from megatron_recipes.data.supply import Manifests, Mixture, Use, check_supply, planned_use, read_manifests

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PROMISE = 1e-3  # of a stage's tokens: how far a source's share may be from its weight in any 1% of the stage
MEASURED = 1_000_000  # sequences of a stage up to which the mixture is drawn instead of bounded
HARMLESS_EPOCHS = 4.0  # Muennighoff et al. 2023, arXiv 2305.16264: up to four repetitions cost next to nothing
SHORT = 8  # documents this many times shorter than a sequence teach little about long context


def check(
    file: Annotated[Path, tyro.conf.Positional],
    tokenizer: Path | None = None,
    verify: bool = False,
    plot: Path | None = None,
) -> None:
    """Check a curriculum against its corpora: tokens, epochs, mixture, tokenizer; exit code 2 where it could not run.

    Args:
        file: the curriculum's YAML file; the paths in it are relative to the current folder.
        tokenizer: Hugging Face tokenizer folder; given, every corpus must have been written with it.
        verify: also read every byte of the corpora and compare it with their manifests.
        plot: PNG or SVG file for the mixture, the learning rate and the sequence length over tokens.
    """
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise UserError(f"--plot {plot}: the file's name must end in .png or .svg")
    with step("Check curriculum", reads=[file], writes=[plot] if plot else []) as out:
        curriculum = Curriculum.read(file)
        manifests = read_manifests(curriculum)
        uses = planned_use(curriculum, manifests)
        check_supply(curriculum, uses)
        if tokenizer is not None or verify:
            open_all(manifests, tokenizer, verify)
        show(curriculum, manifests, uses, out)
        if plot is not None:
            from megatron_recipes.curriculum_plot import draw

            draw(curriculum, plot)


def open_all(manifests: Manifests, tokenizer: Path | None, verify: bool) -> None:
    """Open every corpus as a run would. Raises `UserError` for whatever is missing, changed or of another tokenizer."""
    if tokenizer is None:
        raise UserError("--verify opens the corpora, for which it needs their tokenizer: add --tokenizer FOLDER")
    for path in manifests:
        TokenCorpus.open(path, tokenizer, verify, flag="--tokenizer")


def show(curriculum: Curriculum, manifests: Manifests, uses: Sequence[Use], out: Console) -> None:
    """A table per stage, the totals, and what is odd though it would run."""
    for number, stage in enumerate(curriculum.stages):
        out.print()
        out.print(stage_table(number, curriculum, [use for use in uses if use.stage == number]))
        error, drawn = mixture_error(Mixture(stage, manifests), stage)
        out.print(
            f"lr {rate_text(stage.lr)}; attention {stage.attention}; every 1% of the stage has each source's share to "
            f"within {error:.3%} ({'drawn' if drawn else 'bound'})",
            markup=False,
        )
    out.print()
    tokenizer = next(iter(manifests.values())).tokenizer
    out.print(
        f"{curriculum.tokens:,} tokens in {curriculum.steps:,} steps from {len(manifests)} corpora, all of one tokenizer "
        f"({tokenizer.vocab_size:,} entries, {tokenizer.sha256[:12]})",
        markup=False,
    )
    for warning in warnings(curriculum, manifests, uses):
        out.print(f"note    {warning}", markup=False)


def stage_table(number: int, curriculum: Curriculum, uses: Sequence[Use]) -> Table:
    """What each source gives in a stage."""
    from rich.table import Table

    stage = curriculum.stages[number]
    table = Table(
        title=f"{number + 1} of {len(curriculum.stages)}, {stage.name}: {stage.trained_tokens:,} tokens, {stage.steps:,} steps "
        f"of {stage.sequences_per_step:,} x {stage.seq_len:,}",
        title_justify="left",
    )
    table.add_column("source")
    for name in ("weight", "given", "tokens", "available", "epochs", "allowed"):
        table.add_column(name, justify="right", no_wrap=True)
    for use, weight in zip(uses, stage.weights, strict=True):
        source = stage.sources[use.source]
        table.add_row(
            source.name + (" (replay)" if source.replay else ""),
            f"{weight:.2%}",
            f"{use.tokens / stage.trained_tokens:.2%}",
            short(use.tokens),
            short(use.available),
            f"{use.epochs:.3f}",
            f"{source.max_epochs:g}",
        )
    return table


def rate_text(rate: LearningRate) -> str:
    """The schedule in words."""
    text = f"{rate.peak:g}" if rate.final is None else f"{rate.peak:g} to {rate.final:g} ({rate.decay})"
    if rate.decay_tokens:
        text += f" over the last {rate.decay_tokens:,} tokens"
    return text + (f", warm-up from {rate.initial:g} in {rate.warmup_tokens:,}" if rate.warmup_tokens else "")


def mixture_error(mixture: Mixture, stage: Stage) -> tuple[float, bool]:
    """The worst share's distance from its weight in any window of 1% of the stage, and whether it was drawn or is a bound."""
    window = max(1, stage.sequences // 100)
    if stage.sequences <= MEASURED:
        return mixture.blend.measured_window_error(stage.sequences, window), True
    return mixture.blend.window_error(window), False


def warnings(curriculum: Curriculum, manifests: Manifests, uses: Sequence[Use]) -> Iterator[str]:
    """What would run but may not be meant."""
    before: Stage | None = None
    for number, stage in enumerate(curriculum.stages):
        where = f"stage {stage.name}: "
        error, _ = mixture_error(Mixture(stage, manifests), stage)
        if error > PROMISE:
            yield (
                f"{where}1% of it is {max(1, stage.sequences // 100):,} sequences, too few for a mixture within {PROMISE:.1%}; "
                "over the whole stage shares are as in the table"
            )
        if stage.trained_tokens > 1.01 * stage.tokens:
            yield f"{where}whole steps make {stage.trained_tokens:,} tokens of the {stage.tokens:,} asked for"
        if before is not None:
            ended = before.lr.at(before.trained_tokens, before.trained_tokens)
            starts = stage.lr.at(stage.global_batch_tokens, stage.trained_tokens)
            if starts > 2 * ended:
                yield f"{where}the learning rate jumps from {ended:.3g} to {starts:.3g} at its first step: set warmup_tokens"
        for use in uses:
            if use.stage == number:
                yield from (where + text for text in source_warnings(stage, use, manifests, before))
        before = stage
    if not any(source.replay for stage in curriculum.stages for source in stage.sources):
        yield "no source is marked `replay: true`: nothing keeps what the base model knows"


def source_warnings(stage: Stage, use: Use, manifests: Manifests, before: Stage | None) -> Iterator[str]:
    """The same for one source of a stage."""
    source = stage.sources[use.source]
    manifest = manifests[source.path]
    if use.sequences == 0:
        yield f"{source.name} gets no sequence at all: its weight is below half of one"
    if use.epochs > HARMLESS_EPOCHS:
        yield f"{source.name} is read {use.epochs:.1f} times: beyond {HARMLESS_EPOCHS:g} that helps little (arXiv 2305.16264)"
    mean = manifest.tokens / manifest.documents
    if before is not None and stage.seq_len > before.seq_len and stage.attention == "document" and SHORT * mean < stage.seq_len:
        yield f"{source.name} has {mean:,.0f} tokens a document: few fill a sequence of {stage.seq_len:,}"


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem curriculum check` and run it."""
    parse_and_call(check, argv, prog="mecellem curriculum check")
    return 0
