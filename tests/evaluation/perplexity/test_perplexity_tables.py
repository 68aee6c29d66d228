"""What the terminal shows of a measurement, in 80 columns."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from evaluation.perplexity.results import Change, ModelScores, PerplexityResults, Score, TextFacts
from evaluation.perplexity.tables import print_results

NAMES = ("HuggingFaceTB/SmolLM2-135M", "smollm2_135m_turkish/checkpoints/step_0001500", "exports/qwen3_1p7b_law_second_try")
DOMAINS = ("constitutional_court_decisions", "web")


def score(value: float) -> Score:
    return Score(
        documents=1234, tokens=12_345_678, bytes=50_000_000, nll=math.log(value), perplexity=value,
        perplexity_interval=(value - 10, value + 10), bits_per_byte=1.234, bits_per_byte_interval=(1.201, 1.267),
    )  # fmt: skip


def results(unnamed: int) -> PerplexityResults:
    change = Change(
        perplexity=-0.829, perplexity_interval=(-0.9, -0.8), bits_per_byte=-0.321,
        bits_per_byte_interval=(-0.345, -0.298), real=False,
    )  # fmt: skip
    models = [
        ModelScores(
            name=name, folder=name, kind="folder", digest="0", tokenizer_sha256="0", seconds=1.0, long_documents=7,
            all=score(1234.56), by_domain=dict.fromkeys(DOMAINS, score(1234.56)), change=change if number else None,
            change_by_domain=dict.fromkeys(DOMAINS, change) if number else {},
        )
        for number, name in enumerate(NAMES)
    ]  # fmt: skip
    texts = TextFacts(
        files=["law.jsonl"], sha256="0", documents=2468, characters=1, bytes=1, empty=0, cut=0, left_out=0, unnamed=unnamed
    )
    settings = {"window": 1024, "stride": 512, "dtype": "fp32", "domain_field": "branch"}
    return PerplexityResults(texts=texts, models=models, settings=settings, versions={}, hardware="")


def printed(unnamed: int = 0) -> str:
    stream = io.StringIO()
    print_results(Console(file=stream, width=80), results(unnamed))
    return stream.getvalue()


@pytest.mark.parametrize("table", [0, 1])
def test_names_and_figures_are_whole_in_80_columns(table: int):
    text = printed()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    lines = text.split("bits per byte:")[table].splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert "".join(row[1] for row in cells) == "".join(NAMES) * (len(DOMAINS) + 1)
    assert "".join(row[0] for row in cells) == "".join(DOMAINS) + "all"
    figures = [row[2:] for row in cells if row[2]]
    expected = (
        ["12,345,678", "1234.56", "1224.56–1244.56", "-82.9%"],
        ["1.234", "1.201–1.267", "-0.321 ?", "-0.345–-0.298"],
    )[table]
    assert len(figures) == len(NAMES) * (len(DOMAINS) + 1) and figures[1] == figures[-1] == expected


def test_documents_without_the_field_are_counted():
    assert "2 without 'branch', under their file's name" in " ".join(printed(2).split())
    assert "without 'branch'" not in printed(0)
