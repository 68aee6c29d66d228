"""What `mecellem evaluate fill-mask` writes. Intervals are 95% bootstrap intervals over documents."""

from __future__ import annotations

from typing import Any

from evaluation.results import Record

FORMAT = "mecellem.fill_mask/1"
Interval = tuple[float, float] | None  # None for fewer than two documents


class Rate(Record):
    """A ratio of two sums over documents."""

    value: float
    interval: Interval


class TokenScores(Record):
    """Tokens of the model's own tokenizer at 80/10/10. `*_mask_only`: those shown as the mask; `nll` in nats per token."""

    documents: int
    asked: int
    shown: int
    top1: Rate
    top5: Rate
    top1_mask_only: Rate | None
    top5_mask_only: Rate | None
    nll: Rate


class WordScores(Record):
    """Whole hidden words, the same ones for all models: right when all pieces are."""

    words: int
    top1: Rate
    top5: Rate


class PseudoScores(Record):
    """Pseudo-log-likelihood of the same sentences for all models. `perplexity` is per word."""

    sentences: int
    tokens: int
    words: int
    bytes: int
    perplexity: Rate
    bits_per_byte: Rate


class Scores(Record):
    """One predictor on the documents of one domain, or on all. None: nothing there to ask."""

    tokens: TokenScores
    words: WordScores | None
    pseudo: PseudoScores | None


class ClozeScores(Record):
    """Sentences with one legal term hidden. `ranked_*`: its place among all candidates, where that was asked for."""

    items: int
    top1: Rate
    top5: Rate
    ranked_top1: Rate | None
    ranked_top5: Rate | None


class Predictor(Record):
    """A model, or the unigram baseline on the very same questions."""

    all: Scores
    by_domain: dict[str, Scores]
    cloze: ClozeScores | None


class Difference(Record):
    """This model minus the first one, on the same documents; `real`: the interval excludes 0."""

    value: float
    interval: Interval
    real: bool


class Change(Record):
    """What can be compared between tokenizers: accuracy on words (higher is better), bits per byte (lower is better)."""

    words_top1: Difference | None
    bits_per_byte: Difference | None


class ModelScores(Record):
    """One model. `unknown_tokens` and `altered_texts`: what its tokenizer does not have, and texts that it changes."""

    name: str
    folder: str
    kind: str
    digest: str
    tokenizer_sha256: str
    parameters: int
    positions: int
    seconds: float
    unknown_tokens: int
    altered_texts: int
    model: Predictor
    unigram: Predictor
    change: Change | None


class TextFacts(Record):
    """What was asked about; `cut`: passages shortened to the shortest context; `baseline`: what the unigrams are of."""

    files: list[str]
    sha256: str
    documents: int
    passages: int
    sentences: int
    empty: int
    cut: int
    long_sentences: int
    baseline: str
    cloze: str


class FillMaskResults(Record):
    """All models of one call."""

    format: str = FORMAT
    texts: TextFacts
    models: list[ModelScores]
    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: str


class FillMaskCounts(Record):
    """Rates over `masked` tokens; `nll` in nats per token; `top1_mask_only` is over those shown as [MASK]."""

    documents: int
    masked: int
    top1: float
    top5: float
    top1_mask_only: float | None
    nll: float


class FillMaskScores(Record):
    """Fill-mask of one predictor: how text was masked, all sources together, and each source."""

    probability: float
    corruption: str
    all: FillMaskCounts
    by_source: dict[str, FillMaskCounts]


class Guess(Record):
    """One of a model's best tokens with its probability."""

    token: str
    probability: float


class Sample(Record):
    """A sentence `before` + `truth` + `after` with `truth` hidden, and the model's guesses, best first."""

    id: str
    source: str
    before: str
    truth: str
    after: str
    truth_probability: float
    guesses: list[Guess]
