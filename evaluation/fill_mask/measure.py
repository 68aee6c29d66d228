"""Several masked language models asked the same questions: checked first, each asked once and cached, then set side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.cache import Cache
from evaluation.fill_mask import measures
from evaluation.fill_mask.inputs import Baseline, cloze_items, open_baseline, read_documents
from evaluation.fill_mask.measures import Columns, Questions, Unigrams
from evaluation.fill_mask.models import (
    MaskedModel,
    check_models,
    count_parameters,
    load_model,
    open_tokenizer,
)
from evaluation.fill_mask.passages import Passages, Reader, choose_passages
from evaluation.fill_mask.results import FillMaskResults, FillMaskScores, ModelScores, Predictor, TextFacts
from evaluation.fill_mask.settings import FillMaskSettings
from evaluation.fill_mask.summary import by_domain, change, cloze_scores, fill_mask_counts, scores
from evaluation.fill_mask.tokens import altered_texts, encode, unknown_tokens
from evaluation.machine import hardware_line, versions
from evaluation.model_files import hugging_face_folder
from evaluation.perplexity.documents import text_files
from evaluation.perplexity.measure import names_of
from evaluation.results import write_record
from mecellem.console import console
from mecellem.content import source_sha256
from post_training.model_folder import pick_device
from preprocessing.corpus.document import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CODE = ("evaluation/fill_mask",)  # what the columns depend on; the texts themselves are hashed


Found = dict[str, Columns]  # by measure: tokens, words, pseudo, cloze, ranking


@dataclass(frozen=True, slots=True)
class Work:
    """What all models of a call share."""

    questions: Questions
    baseline: Baseline
    settings: FillMaskSettings
    device: str
    store: Cache


def measure_models(
    folders: Sequence[Path],
    texts: Sequence[Path],
    out: Path,
    cache: Path,
    settings: FillMaskSettings,
    *,
    train: Sequence[Path] = (),
    cloze: Sequence[Path] = (),
    device: str = "auto",
) -> FillMaskResults:
    """Ask every model every question and write `out` (JSON). Raises `UserError` for bad input before any work."""
    models = check_models(folders)
    names = names_of(folders)
    tokenizers = [open_tokenizer(model) for model in models]
    readers = [Reader(name, kind, model.positions) for name, kind, model in zip(names, tokenizers, models, strict=True)]
    documents, empty = read_documents(texts, settings)
    chosen = choose_passages(documents, readers, settings)
    items = cloze_items(documents, readers, cloze, settings)
    baseline = open_baseline(train, texts, chosen.passages, settings)
    questions = Questions(chosen.passages, chosen.sentences, tuple(items))
    work = Work(questions, baseline, settings, pick_device(device), Cache(cache))
    found: list[tuple[Found, Found]] = []
    for number, (model, tokenizer) in enumerate(zip(models, tokenizers, strict=True), start=1):
        console().print(f"model {number} of {len(models)}: {model.folder}", markup=False)
        found.append((columns_of(work, model, tokenizer), unigrams_of(work, model, tokenizer)))
    results = FillMaskResults(
        texts=text_facts(text_files(texts), len(documents) + empty, empty, chosen, baseline, cloze),
        models=[
            summarise(work, model, name, tokenizer, *part, first=found[0][0] if part is not found[0] else None)
            for model, name, tokenizer, part in zip(models, names, tokenizers, found, strict=True)
        ],
        settings=asdict(settings),
        versions=versions(),
        hardware=hardware_line(work.device),
    )
    write_record(out, results)
    return results


class Recorder:
    """Columns of one model or baseline, each from the cache or computed."""

    def __init__(self, work: Work, model: MaskedModel, kind: str, **shared: Any) -> None:
        """`kind` begins the names of the cache's files; `shared` is part of all keys."""
        self.work, self.model, self.kind, self.shared = work, model, kind, shared
        self.found: dict[str, Columns] = {}

    def ask(self, name: str, asked: Sequence[Any], make: Callable[[], Columns]) -> None:
        """The columns of one measure of `asked`."""
        settings = self.work.settings
        parts = {
            "asked": sha256_of_all(asked),
            "tokenizer": self.model.tokenizer_sha256,
            "probability": settings.mask_probability,
            "seed": settings.mask_seed,
            "versions": versions(),
            "code": source_sha256(*CODE),
            **self.shared,
        }
        self.found[name] = self.work.store.record(f"{self.kind}-{name}", parts, Columns, make)


def columns_of(work: Work, model: MaskedModel, tokenizer: PreTrainedTokenizerBase, only_tokens: bool = False) -> Found:
    """All measures of a model, or the masked tokens alone, each computed once; it is loaded only where one is missing."""
    asked, settings = work.questions, work.settings
    load = once(lambda: load_model(model, work.store, work.device))
    recorder = Recorder(work, model, "masked", weights=model.digest, device=work.device.split(":")[0])
    recorder.ask("tokens", asked.passages, lambda: measures.tokens_of_model(load(), tokenizer, asked.passages, settings))
    if only_tokens:
        return recorder.found
    recorder.ask("words", asked.passages, lambda: measures.words_of_model(load(), tokenizer, asked.passages, settings))
    recorder.ask("pseudo", asked.sentences, lambda: measures.pseudo_of_model(load(), tokenizer, asked.sentences, settings))

    def cloze(ranking: bool) -> Columns:
        return measures.cloze_of_model(load(), tokenizer, asked.items, ranking, settings)

    for name, ranking in cloze_measures(work).items():
        recorder.ask(name, asked.items, partial(cloze, ranking))
    return recorder.found


def unigrams_of(work: Work, model: MaskedModel, tokenizer: PreTrainedTokenizerBase, only_tokens: bool = False) -> Found:
    """The same measures of the baseline with a model's tokenizer."""
    asked, settings = work.questions, work.settings

    @once
    def counted() -> Unigrams:
        console().print(f"counting words and tokens of {work.baseline.note}", markup=False)
        texts = work.baseline.read()
        return Unigrams(measures.count_words(texts), measures.count_tokens(tokenizer, texts))

    recorder = Recorder(work, model, "unigram", train=work.baseline.sha256, characters=settings.baseline_characters)
    recorder.ask("tokens", asked.passages, lambda: measures.tokens_of_unigrams(counted(), tokenizer, asked.passages, settings))
    if only_tokens:
        return recorder.found
    recorder.ask("words", asked.passages, lambda: measures.words_of_unigrams(counted(), asked.passages, settings))
    recorder.ask("pseudo", asked.sentences, lambda: measures.pseudo_of_unigrams(counted(), tokenizer, asked.sentences))

    def cloze(ranking: bool) -> Columns:
        return measures.cloze_of_unigrams(counted(), asked.items, ranking)

    for name, ranking in cloze_measures(work).items():
        recorder.ask(name, asked.items, partial(cloze, ranking))
    return recorder.found


def cloze_measures(work: Work) -> dict[str, bool]:
    """The cloze's measures and whether each ranks candidates; none without items."""
    if not work.questions.items:
        return {}
    return {"cloze": False, "ranking": True} if work.settings.cloze_ranking else {"cloze": False}


def sha256_of_all(asked: Sequence[Any]) -> str:
    """Changes with any passage or item."""
    return hashlib.sha256("\n".join(repr(item) for item in asked).encode()).hexdigest()


def predictor(work: Work, columns: Mapping[str, Columns]) -> Predictor:
    """One model's, or the baseline's, scores over all and by domain."""
    seed = work.settings.mask_seed
    passages = by_domain([item.domain for item in work.questions.passages])
    sentences = by_domain([item.domain for item in work.questions.sentences])
    nothing = np.zeros(0, dtype=np.int64)
    return Predictor(
        all=scores(columns, np.arange(len(work.questions.passages)), np.arange(len(work.questions.sentences)), seed),
        by_domain={name: scores(columns, chosen, sentences.get(name, nothing), seed) for name, chosen in passages.items()},
        cloze=cloze_scores(columns.get("cloze"), columns.get("ranking"), seed),
    )


def summarise(
    work: Work,
    model: MaskedModel,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    columns: Mapping[str, Columns],
    unigrams: Mapping[str, Columns],
    first: Mapping[str, Columns] | None,
) -> ModelScores:
    """One model's record."""
    encoded = encode(tokenizer, [item.text for item in (*work.questions.passages, *work.questions.sentences)])
    return ModelScores(
        name=name,
        folder=str(model.folder),
        kind=model.kind,
        digest=model.digest,
        tokenizer_sha256=model.tokenizer_sha256,
        parameters=count_parameters(hugging_face_folder(model, work.store)),
        positions=model.positions,
        seconds=sum(part.seconds for part in columns.values()),
        unknown_tokens=unknown_tokens(tokenizer, encoded),
        altered_texts=altered_texts(tokenizer, encoded),
        model=predictor(work, columns),
        unigram=predictor(work, unigrams),
        change=None if first is None else change(first, columns, work.settings.mask_seed),
    )


def text_facts(
    files: Sequence[Path], documents: int, empty: int, chosen: Passages, baseline: Baseline, cloze: Sequence[Path]
) -> TextFacts:
    """What was asked about, in numbers."""
    return TextFacts(
        files=[str(path) for path in files],
        sha256=sha256_of_all(chosen.passages),
        documents=documents,
        passages=len(chosen.passages),
        sentences=len(chosen.sentences),
        empty=empty,
        cut=chosen.cut,
        long_sentences=chosen.long_sentences,
        baseline=baseline.note,
        cloze=", ".join(map(str, cloze)) or "built-in, from the texts",
    )


def score_documents(
    folder: Path, documents: Sequence[Document], baseline: Baseline, settings: FillMaskSettings, store: Cache, device: str
) -> tuple[FillMaskScores, FillMaskScores]:
    """Fill-mask of one model on documents, and of the unigram baseline: masked tokens alone.

    Raises `UserError` for a bad model folder, before any work.
    """
    (model,) = check_models([folder])
    tokenizer = open_tokenizer(model)
    passages = choose_passages(documents, [Reader(folder.name, tokenizer, model.positions)], settings).passages
    work = Work(Questions(passages, (), ()), baseline, settings, device, store)
    domains = [passage.domain for passage in passages]
    found, common = columns_of(work, model, tokenizer, True), unigrams_of(work, model, tokenizer, True)
    return (
        fill_mask_counts(found["tokens"], domains, settings.mask_probability),
        fill_mask_counts(common["tokens"], domains, settings.mask_probability),
    )
