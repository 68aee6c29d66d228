"""Several models on the same documents: checked first, each scored once and cached, then set side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from evaluation.cache import Cache
from evaluation.machine import hardware_line, versions
from evaluation.perplexity.documents import TextSet, read_texts
from evaluation.perplexity.models import ModelSource, check_model, open_tokenizer
from evaluation.perplexity.results import Change, ModelScores, PerplexityResults, Score, TextFacts
from evaluation.perplexity.scoring import DocumentLosses, score_documents
from evaluation.perplexity.settings import PerplexitySettings
from evaluation.perplexity.statistics import LOG_2, Array, interval, ratio, ratio_difference
from evaluation.results import write_record
from mecellem.console import console
from mecellem.content import source_sha256
from mecellem.errors import UserError
from mecellem.files import sha256_of
from post_training.model_folder import pick_device

ROOMS = ("evaluation", "megatron_recipes", "conversion", "preprocessing")


def measure_models(
    folders: Sequence[Path],
    texts: Sequence[Path],
    out: Path,
    cache: Path,
    settings: PerplexitySettings,
    device: str = "auto",
) -> PerplexityResults:
    """Score every model on every document and write `out` (JSON). Raises `UserError` for bad input before any work."""
    sources = check_models(folders, settings)
    documents = read_texts(texts, settings)
    place = pick_device(device)
    store = Cache(cache)
    losses = []
    for number, source in enumerate(sources, start=1):
        console().print(f"model {number} of {len(sources)}: {source.folder}", markup=False)
        losses.append(cached_losses(source, documents, settings, place, store))
    results = PerplexityResults(
        texts=text_facts(texts, documents),
        models=summarise(sources, documents, losses, settings.seed),
        settings=asdict(settings),
        versions=versions(),
        hardware=hardware_line(place),
    )
    write_record(out, results)
    return results


def check_models(folders: Sequence[Path], settings: PerplexitySettings) -> list[ModelSource]:
    """All models, checked without loading weights. Raises `UserError`, also for a window that one of them cannot see."""
    if not folders:
        raise UserError("no model was given: name one or more Hugging Face folders or Megatron checkpoints")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a model folder is named twice: name each one once")
    sources = [check_model(folder) for folder in folders]
    for source in sources:
        if settings.window > source.positions:
            raise UserError(
                f"--window {settings.window} is more than the {source.positions} positions of {source.folder}: lower it"
            )
        open_tokenizer(source)
    return sources


def cached_losses(
    source: ModelSource, documents: TextSet, settings: PerplexitySettings, device: str, store: Cache
) -> DocumentLosses:
    """The losses of all documents, computed once for the same weights, texts, settings, code and kind of device."""
    parts = {
        "model": source.digest,
        "tokenizer": sha256_of(source.tokenizer / "tokenizer.json"),
        "texts": documents.sha256,
        "settings": {name: getattr(settings, name) for name in ("window", "stride", "dtype")},
        "device": device.split(":")[0],
        "versions": versions(),
        "code": source_sha256(*ROOMS),
    }
    texts = [text.text for text in documents.texts]
    return store.record(
        "perplexity", parts, DocumentLosses, lambda: score_documents(source, texts, settings, device, source.folder.name)
    )


def text_facts(paths: Sequence[Path], documents: TextSet) -> TextFacts:
    """What was scored, in numbers."""
    return TextFacts(
        files=[str(path) for path in paths],
        sha256=documents.sha256,
        documents=len(documents.texts),
        characters=sum(len(text.text) for text in documents.texts),
        bytes=sum(text.size for text in documents.texts),
        empty=documents.empty,
        cut=documents.cut,
        left_out=documents.left_out,
        unnamed=documents.unnamed,
    )


def names_of(folders: Sequence[Path]) -> list[str]:
    """Each folder by as few of its last names as tell all of them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("check_models refuses a folder that is named twice")


def summarise(
    sources: Sequence[ModelSource], documents: TextSet, losses: Sequence[DocumentLosses], seed: int
) -> list[ModelScores]:
    """Every model's scores over all documents and by sub-domain, and its change from the first."""
    sizes = np.array([text.size for text in documents.texts], dtype=np.float64)
    tables = [np.array([found.nll, found.tokens, sizes], dtype=np.float64) for found in losses]  # [3, documents]
    everything = np.arange(len(sizes))
    domains = {name: np.array(positions) for name, positions in documents.domains().items()}
    models = []
    for number, (name, source) in enumerate(zip(names_of([item.folder for item in sources]), sources, strict=True)):
        table, first = tables[number], tables[0] if number else None
        models.append(
            ModelScores(
                name=name,
                folder=str(source.folder),
                kind=source.kind,
                digest=source.digest,
                tokenizer_sha256=sha256_of(source.tokenizer / "tokenizer.json"),
                seconds=losses[number].seconds,
                long_documents=sum(count > 1 for count in losses[number].windows),
                all=score(table, everything, seed),
                by_domain={domain: score(table, chosen, seed) for domain, chosen in domains.items()},
                change=None if first is None else change(first, table, everything, seed),
                change_by_domain={}
                if first is None
                else {domain: change(first, table, chosen, seed) for domain, chosen in domains.items()},
            )
        )
    return models


def score(table: Array, chosen: Array, seed: int) -> Score:
    """The figures of the `chosen` documents. `table` `[3, documents]`: losses, tokens, bytes."""
    nll, tokens, sizes = table[:, chosen]
    if tokens.sum() == 0:
        raise UserError("the tokenizer makes no token of the texts of a sub-domain: it does not belong to this language")
    mean, bits = float(ratio((nll, tokens))), float(ratio((nll / LOG_2, sizes)))
    spread = interval(ratio, (nll, tokens), seed)
    return Score(
        documents=len(chosen),
        tokens=int(tokens.sum()),
        bytes=int(sizes.sum()),
        nll=mean,
        perplexity=math.exp(mean),
        perplexity_interval=None if spread is None else (math.exp(spread[0]), math.exp(spread[1])),
        bits_per_byte=bits,
        bits_per_byte_interval=interval(ratio, (nll / LOG_2, sizes), seed),
    )


def change(first: Array, table: Array, chosen: Array, seed: int) -> Change:
    """`table` minus `first` on the `chosen` documents, with the same documents redrawn for both."""
    before, after = first[:, chosen], table[:, chosen]
    bits = (before[0] / LOG_2, before[2], after[0] / LOG_2, after[2])
    spread = interval(ratio_difference, bits, seed)
    same_tokens = bool((first[1] == table[1]).all())
    relative, relative_spread = None, None
    if same_tokens:
        nats = (before[0], before[1], after[0], after[1])
        relative = math.expm1(float(ratio_difference(nats)))
        found = interval(ratio_difference, nats, seed)
        relative_spread = None if found is None else (math.expm1(found[0]), math.expm1(found[1]))
    return Change(
        perplexity=relative,
        perplexity_interval=relative_spread,
        bits_per_byte=float(ratio_difference(bits)),
        bits_per_byte_interval=spread,
        real=spread is not None and (spread[0] > 0 or spread[1] < 0),
    )
