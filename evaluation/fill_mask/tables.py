"""The tables that `mecellem evaluate fill-mask` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evaluation.fill_mask.results import Change, Difference, FillMaskResults, ModelScores, Predictor, Rate, Scores

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ALL = "all"
DASH = "–"
UNIGRAM = "unigram"
NOTE = (
    "80/10/10: of the tokens asked for 80% are shown as [MASK], 10% as a random token and 10% unchanged, as the Mecellem paper "
    "evaluates; a model can copy the unchanged ones, so it is compared with the unigram baseline on [MASK] alone. Tokens and "
    "nats depend on the tokenizer: compare models of different tokenizers by words and by bits per byte."
)


def percent(rate: Rate | None) -> list[str]:
    """`12.3`, `10.1–14.5`: a share and its interval in per cent; dashes for what does not exist."""
    return number(rate, 1, 100)


def number(rate: Rate | None, digits: int, scale: float = 1) -> list[str]:
    """A value and its interval; large numbers without decimals."""
    if rate is None:
        return [DASH, DASH]
    digits = digits if scale * rate.value < 1000 else 0
    values = [f"{scale * value:,.{digits}f}" for value in (rate.value, *(rate.interval or ()))]
    return [values[0], DASH.join(values[1:]) or DASH]


def token_cells(scores: Scores) -> list[str]:
    """What depends on the tokenizer."""
    found = scores.tokens
    return [*percent(found.top1_mask_only), *percent(found.top1), percent(found.top5)[0], number(found.nll, 2)[0]]


def word_cells(scores: Scores) -> list[str]:
    """Whole words."""
    words = scores.words
    return [f"{words.words:,}", *percent(words.top1), *percent(words.top5)] if words else [DASH] * 5


def pseudo_cells(scores: Scores) -> list[str]:
    """Pseudo-perplexity."""
    found = scores.pseudo
    return [*number(found.bits_per_byte, 3), number(found.perplexity, 1)[0]] if found else [DASH] * 3


# title -> names of its columns, and their cells
MEASURES: dict[str, tuple[tuple[str, ...], Callable[[Scores], list[str]]]] = {
    "masked tokens, %": (("on [MASK]", "95%", "80/10/10", "95%", "top-5", "nats"), token_cells),
    "masked words, the same for all models, %": (("words", "top-1", "95%", "top-5", "95%"), word_cells),
    "pseudo-perplexity of the same sentences": (("bits/byte", "95%", "per word"), pseudo_cells),
}


def domain_rows(predictor: Predictor) -> list[tuple[str, Scores]]:
    """(domain, scores), all last, and alone where there is only one domain."""
    parts = list(predictor.by_domain.items())
    return [*(parts if len(parts) > 1 else []), (ALL, predictor.all)]


def predictors(models: Sequence[ModelScores]) -> list[tuple[str, Predictor]]:
    """Every model, each after the unigrams of its tokenizer; models that share a tokenizer share them."""
    found, seen = [], set()
    alike = len({model.tokenizer_sha256 for model in models}) == 1
    for model in models:
        if model.tokenizer_sha256 not in seen:
            seen.add(model.tokenizer_sha256)
            found.append((UNIGRAM if alike else f"{UNIGRAM} {model.name}", model.unigram))
        found.append((model.name, model.model))
    return found


def score_table(results: FillMaskResults, measure: str) -> Table:
    """One row a domain and predictor, narrow enough for a terminal of 80 columns."""
    from rich.table import Table

    columns, cells = MEASURES[measure]
    table = Table(title=measure, title_justify="left")
    for name in ("domain", "model"):
        table.add_column(name, overflow="fold")
    for name in columns:
        table.add_column(name.replace("[", r"\["), justify="right", no_wrap=True)
    found = predictors(results.models)
    by_predictor = [domain_rows(predictor) for _, predictor in found]
    for part in zip(*by_predictor, strict=True):
        for place, ((name, _), (domain, scores)) in enumerate(zip(found, part, strict=True)):
            table.add_row(domain if place == 0 else "", name, *cells(scores), end_section=place == len(found) - 1)
    return table


def cloze_table(results: FillMaskResults) -> Table:
    """A row a predictor; where candidates were ranked, these rows come second."""
    from rich.table import Table

    found = [(name, predictor.cloze) for name, predictor in predictors(results.models) if predictor.cloze]
    table = Table(title=f"legal cloze, {found[0][1].items} items, {results.texts.cloze}, %", title_justify="left")
    for name in ("choice", "model"):
        table.add_column(name, overflow="fold")
    for name in ("top-1", "95%", "top-5", "95%"):
        table.add_column(name, justify="right", no_wrap=True)
    rows: dict[str, list[tuple[str, Rate | None, Rate | None]]] = {
        "any word": [(name, cloze.top1, cloze.top5) for name, cloze in found],
        "candidates": [(name, cloze.ranked_top1, cloze.ranked_top5) for name, cloze in found if cloze.ranked_top1],
    }
    for choice, part in rows.items():
        for place, (name, top1, top5) in enumerate(part):
            cells = (*percent(top1), *percent(top5))
            table.add_row(choice if place == 0 else "", name, *cells, end_section=place == len(part) - 1)
    return table


def change_lines(results: FillMaskResults) -> list[str]:
    """How each further model differs from the first."""
    first = results.models[0].name
    return [f"{model.name} minus {first}: {change_text(model.change)}" for model in results.models[1:] if model.change]


def change_text(change: Change) -> str:
    """`words top-1 +1.2 (0.3–2.1) points, bits/byte -0.012 (-0.020–-0.004)`; ? marks an interval that includes 0."""

    def text(found: Difference | None, scale: float, digits: int) -> str:
        if found is None:
            return DASH
        low_high = found.interval or ()
        spread = " to ".join(f"{scale * value:+.{digits}f}" for value in low_high)
        return f"{scale * found.value:+.{digits}f}{f' ({spread})' if spread else ''}{'' if found.real else ' ?'}"

    words, bits = text(change.words_top1, 100, 1), text(change.bits_per_byte, 1, 3)
    return f"words top-1 {words} points, bits/byte {bits}"


def coverage(results: FillMaskResults) -> str:
    """What was asked about, what was left out or cut, and what the tokenizers change."""
    texts = results.texts
    counts = {
        "empty documents": texts.empty,
        "passages cut to the shortest context": texts.cut,
        "sentences left out as too long": texts.long_sentences,
    }
    lines = [
        f"{texts.passages:,} passages and {texts.sentences:,} sentences of {texts.documents:,} documents; unigrams of "
        f"{texts.baseline}",
        *(f"{count:,} {what}" for what, count in counts.items() if count),
        *(
            f"{model.name}: its tokenizer changes {model.altered_texts:,} texts and has no token in {model.unknown_tokens:,} "
            "places, so its figures are easier to reach"
            for model in results.models
            if model.altered_texts or model.unknown_tokens
        ),
    ]
    return "\n".join(lines)


def print_results(console: Console, results: FillMaskResults) -> None:
    """The tables, the changes, and what to think of them."""
    for measure in MEASURES:
        console.print(score_table(results, measure))
    if any(model.model.cloze for model in results.models):
        console.print(cloze_table(results))
    for line in (*change_lines(results), coverage(results), NOTE):
        console.print(line, markup=False)
