"""`mecellem report`: read, draw, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call

if TYPE_CHECKING:
    from evaluation.report.plots import Drawn


def report_run(
    run: tyro.conf.Positional[Path],
    evaluation: Path | None = None,
    corpus: Path | None = None,
    perplexity: Path | None = None,
    out: Path | None = None,
) -> None:
    """Write one self-contained HTML page about a run; its figures as PNG and CSV and all numbers as summary.json beside it.

    Works for a run that was not evaluated, too; the page then says how to evaluate it. Given the results (JSON) of
    `mecellem evaluate`, `evaluate fill-mask`, `perplexity`, `long-context`, `efficiency` or `reward`, it writes a page
    about these.

    Args:
        run: folder of `mecellem train`, or results of an evaluation
        evaluation: folder with selection.json, as the evaluation of a run's checkpoints writes it; RUN/evaluation if absent
        corpus: folder with corpus.json, for the table of licences; the one that was evaluated on if absent
        perplexity: figures of `mecellem evaluate perplexity` (JSON) for a decoder's run; RUN/evaluation/perplexity.json if
            absent and there
        out: the page; RUN/report.html, or beside the results, if absent
    """
    if run.is_file():
        for name, value in (("evaluation", evaluation), ("corpus", corpus), ("perplexity", perplexity)):
            if value is not None:
                raise UserError(f"--{name} is for the report on a run, and {run} is a file: remove the flag")
        report_results(run, out or run.with_suffix(".html"))
        return
    from evaluation.report.gather import PERPLEXITY, gather
    from evaluation.report.page import render
    from evaluation.report.plots import draw_all
    from evaluation.report.summary import write_summary

    evaluation, out = evaluation or run / "evaluation", out or run / "report.html"
    pictures, numbers = out.parent / f"{out.stem}_figures", out.parent / "summary.json"
    with step(f"report on {run}", reads=[run, perplexity or evaluation], writes=[out, numbers, pictures]):
        data = gather(run, evaluation, corpus, perplexity)
        figures = draw_all(data)
        write_pictures(pictures, figures)
        write_summary(numbers, data)
        texts = corpus or "data/corpus"
        hint = f"mecellem select {run} --corpus {texts} --out {evaluation}"
        if data.causal:
            before = data.settings["config"].get("init_from") or "ANOTHER_MODEL"
            hint = f"mecellem evaluate perplexity {before} {newest(run)} --texts {texts} --out {evaluation / PERPLEXITY}"
        with atomic_write(out) as handle:
            handle.write(render(data, figures, hint))


def report_results(results: Path, out: Path) -> None:
    """The page about the results of an evaluation, with its figures beside it."""
    from evaluation.report.results_pages import draw, read_content, render

    pictures = out.parent / f"{out.stem}_figures"
    with step(f"report on {results}", reads=[results], writes=[out, pictures]):
        content = read_content(results)
        figures = draw(content)
        write_pictures(pictures, figures)
        with atomic_write(out) as handle:
            handle.write(render(content, figures, results))


def write_pictures(folder: Path, figures: Mapping[str, Drawn]) -> None:
    """Every figure as PNG, in every theme, and its data as CSV."""
    for name, drawn in figures.items():
        for theme, png in drawn.images.items():
            with atomic_write(folder / f"{name}{'' if theme == 'light' else f'-{theme}'}.png", "wb") as handle:
                handle.write(png)
        with atomic_write(folder / f"{name}.csv") as handle:
            handle.write(drawn.csv)


def newest(run: Path) -> Path:
    """The run's last checkpoint, as far as its folder tells."""
    return max((run / "checkpoints").glob("step_*"), default=run / "checkpoints" / "step_NNNNNNN")


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem report`."""
    parse_and_call(report_run, argv, prog="mecellem report")
    return 0
