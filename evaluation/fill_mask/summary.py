"""Columns of sums by document -> rates with 95% bootstrap intervals, by domain and over all, and changes between models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.fill_mask.measures import Columns
from evaluation.fill_mask.results import (
    Change,
    ClozeScores,
    Difference,
    FillMaskCounts,
    FillMaskScores,
    PseudoScores,
    Rate,
    Scores,
    TokenScores,
    WordScores,
)
from evaluation.perplexity.statistics import LOG_2, interval, ratio, ratio_difference

Numbers = Any  # an array of float64: statistics.interval calls it a sequence of floats
Chosen = np.ndarray  # numbers of documents


def column(columns: Columns, name: str, chosen: Chosen | None = None) -> Numbers:
    """One column `[documents]`, or its `chosen` entries."""
    values = np.array(columns.values[name], dtype=np.float64)
    return values if chosen is None else values[chosen]


def rate(hits: Numbers, asked: Numbers, seed: int) -> Rate | None:
    """Sum of `hits` over sum of `asked`; None where nothing was asked. Documents without a question say nothing."""
    asking = asked > 0
    if not asking.any():
        return None
    parts = (hits[asking], asked[asking])
    return Rate(value=float(ratio(parts)), interval=interval(ratio, parts, seed))


def known(found: Rate | None) -> Rate:
    """A rate that must be there."""
    assert found is not None
    return found


def token_scores(columns: Columns, chosen: Chosen, seed: int) -> TokenScores:
    """Masked tokens of the chosen documents."""
    values = {name: column(columns, name, chosen) for name in columns.values}
    asked, shown = values["asked"], values["shown"]
    return TokenScores(
        documents=int((asked > 0).sum()),
        asked=int(asked.sum()),
        shown=int(shown.sum()),
        top1=known(rate(values["top1"], asked, seed)),
        top5=known(rate(values["top5"], asked, seed)),
        top1_mask_only=rate(values["shown_top1"], shown, seed),
        top5_mask_only=rate(values["shown_top5"], shown, seed),
        nll=known(rate(values["nll"], asked, seed)),
    )


def word_scores(columns: Columns, chosen: Chosen, seed: int) -> WordScores | None:
    """Masked words of the chosen documents; None where they have no words."""
    asked = column(columns, "words", chosen)
    top1, top5 = (rate(column(columns, name, chosen), asked, seed) for name in ("top1", "top5"))
    return None if top1 is None or top5 is None else WordScores(words=int(asked.sum()), top1=top1, top5=top5)


def pseudo_scores(columns: Columns, chosen: Chosen, seed: int) -> PseudoScores | None:
    """Pseudo-perplexity of the chosen sentences; None where there are none with a word."""
    nll, tokens, words, sizes = (column(columns, name, chosen) for name in ("nll", "tokens", "words", "bytes"))
    mean, bits = rate(nll, words, seed), rate(nll / LOG_2, sizes, seed)
    if mean is None or bits is None:
        return None
    spread = None if mean.interval is None else (math.exp(mean.interval[0]), math.exp(mean.interval[1]))
    return PseudoScores(
        sentences=len(chosen),
        tokens=int(tokens.sum()),
        words=int(words.sum()),
        bytes=int(sizes.sum()),
        perplexity=Rate(value=math.exp(mean.value), interval=spread),
        bits_per_byte=bits,
    )


def cloze_scores(open_: Columns | None, ranked: Columns | None, seed: int) -> ClozeScores | None:
    """The cloze over all items."""
    if open_ is None:
        return None
    ones = np.ones(len(open_.values["top1"]))
    top1, top5 = (known(rate(column(open_, name), ones, seed)) for name in ("top1", "top5"))
    places = [None, None] if ranked is None else [rate(column(ranked, name), ones, seed) for name in ("top1", "top5")]
    return ClozeScores(items=len(ones), top1=top1, top5=top5, ranked_top1=places[0], ranked_top5=places[1])


def by_domain(domains: Sequence[str]) -> dict[str, Chosen]:
    """Domain -> numbers of its documents, in alphabetical order."""
    return {name: np.array([i for i, found in enumerate(domains) if found == name]) for name in sorted(set(domains))}


def scores(columns: Mapping[str, Columns], passages: Chosen, sentences: Chosen, seed: int) -> Scores:
    """All measures of the chosen passages and sentences."""
    return Scores(
        tokens=token_scores(columns["tokens"], passages, seed),
        words=word_scores(columns["words"], passages, seed),
        pseudo=pseudo_scores(columns["pseudo"], sentences, seed) if len(sentences) else None,
    )


def difference(first: Sequence[Numbers], second: Sequence[Numbers], seed: int) -> Difference | None:
    """(hits, asked) of the second model minus those of the first, on the same documents."""
    asking = (first[1] > 0) & (second[1] > 0)
    if not asking.any():
        return None
    parts = [part[asking] for part in (*first, *second)]
    spread = interval(ratio_difference, parts, seed)
    real = spread is not None and (spread[0] > 0 or spread[1] < 0)
    return Difference(value=float(ratio_difference(parts)), interval=spread, real=real)


def change(first: Mapping[str, Columns], second: Mapping[str, Columns], seed: int) -> Change:
    """A model beside the first one, in what does not depend on the tokenizer."""
    words = [[column(part["words"], name) for name in ("top1", "words")] for part in (first, second)]
    bits = [[column(part["pseudo"], "nll") / LOG_2, column(part["pseudo"], "bytes")] for part in (first, second)]
    return Change(words_top1=difference(words[0], words[1], seed), bits_per_byte=difference(bits[0], bits[1], seed))


def fill_mask_counts(columns: Columns, domains: Sequence[str], probability: float) -> FillMaskScores:
    """Masked tokens as they stand beside a checkpoint: rates without intervals, by source."""

    def counts(chosen: Chosen) -> FillMaskCounts:
        sums = {name: float(column(columns, name, chosen).sum()) for name in columns.values}
        return FillMaskCounts(
            documents=int((column(columns, "asked", chosen) > 0).sum()),
            masked=int(sums["asked"]),
            top1=sums["top1"] / sums["asked"],
            top5=sums["top5"] / sums["asked"],
            top1_mask_only=sums["shown_top1"] / sums["shown"] if sums["shown"] else None,
            nll=sums["nll"] / sums["asked"],
        )

    return FillMaskScores(
        probability=probability,
        corruption="80/10/10",
        all=counts(np.arange(len(domains))),
        by_source={name: counts(chosen) for name, chosen in by_domain(domains).items()},
    )
