"""Losses of all documents under one model: sums and token counts by document, in batches of similar length."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluation.perplexity.models import ModelSource, open_model, open_tokenizer
from evaluation.perplexity.settings import PerplexitySettings
from evaluation.perplexity.windows import Window, windows
from evaluation.results import Record
from mecellem.console import progress_bar

if TYPE_CHECKING:
    from evaluation.perplexity.models import Scorer

LOGITS_BYTES = 1 << 29  # of one batch, in fp32: large vocabularies get smaller batches


class DocumentLosses(Record):
    """Per document, in the order of the texts: sum of the losses in nats, tokens scored, windows used."""

    nll: list[float]
    tokens: list[int]
    windows: list[int]
    seconds: float


def batches(work: Sequence[tuple[int, Window]], most: int) -> Iterator[list[tuple[int, Window]]]:
    """(document, window) pairs of similar length, at most `most` input tokens with padding, but at least one pair."""
    batch: list[tuple[int, Window]] = []
    longest = 0
    for item in sorted(work, key=lambda item: (item[1].start - item[1].end, item[0], item[1].start)):
        if batch and (len(batch) + 1) * longest > most:
            yield batch
            batch = []
        if not batch:
            longest = item[1].end - item[1].start  # the first is the longest
        batch.append(item)
    if batch:
        yield batch


def score_batch(
    model: Scorer, sequences: Sequence[np.ndarray], batch: Sequence[tuple[int, Window]], device: str
) -> list[float]:
    """Sum of the losses that each window of a batch counts. Shorter rows are padded behind, where no token looks."""
    import torch

    lengths = [window.end - window.start for _, window in batch]
    longest = max(lengths)
    ids = np.zeros((len(batch), longest + 1), dtype=np.int64)
    for row, (document, window) in enumerate(batch):
        ids[row, : lengths[row] + 1] = sequences[document][window.start : window.end + 1]
    first = min(length - window.scored for length, (_, window) in zip(lengths, batch, strict=True))
    with torch.inference_mode():
        losses = model.losses(torch.from_numpy(ids).to(device), longest - first).double().cpu().numpy()
    return [
        float(losses[row, length - window.scored - first : length - first].sum())
        for row, (length, (_, window)) in enumerate(zip(lengths, batch, strict=True))
    ]


def score_documents(
    source: ModelSource, texts: Sequence[str], settings: PerplexitySettings, device: str, title: str
) -> DocumentLosses:
    """Every token of every text scored once, after the start token (see `open_tokenizer`) and what the window holds."""
    started = time.perf_counter()
    tokenizer, start = open_tokenizer(source)
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    sequences = [np.array([start, *ids], dtype=np.int64) for ids in encoded]
    cut = [windows(len(sequence) - 1, settings.window, settings.stride) for sequence in sequences]
    work = [(document, window) for document, parts in enumerate(cut) for window in parts]
    nll = np.zeros(len(texts))
    most = max(1, min(settings.batch_tokens, LOGITS_BYTES // (4 * source.vocabulary)))
    with open_model(source, settings.dtype, device) as model, progress_bar(transient=True) as bar:
        task = bar.add_task(title, total=len(work))
        for batch in batches(work, most):
            for (document, _), loss in zip(batch, score_batch(model, sequences, batch, device), strict=True):
                nll[document] += loss
            bar.update(task, advance=len(batch))
    return DocumentLosses(
        nll=nll.tolist(),
        tokens=[len(sequence) - 1 for sequence in sequences],
        windows=[len(parts) for parts in cut],
        seconds=time.perf_counter() - started,
    )
