"""Fill-mask accuracy on held-out text, beside the unigram baseline.

15% of each document's tokens are chosen, and of those 80% are shown as [MASK], 10% as a random token and 10%
unchanged (Devlin et al. 2019, section 3.1); the Mecellem paper's accuracies (57.62% and 60.76%) are stated for this
same 15%, 80/10/10 evaluation. `top1` counts all chosen tokens, as they do. But one in ten of these is shown unchanged,
and a model can copy it where the unigram baseline cannot; so what the two are compared by is `top1_mask_only`, which
counts the tokens shown as [MASK]. Which tokens are chosen depends on the document's id and ids alone, so models that
share a tokenizer answer the same questions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.choice import choose_documents, hash_order
from evaluation.results import FillMaskCounts, FillMaskScores
from evaluation.settings import FillMaskSettings
from mecellem.console import progress_bar
from mecellem.errors import UserError
from preprocessing.corpus.document import Document

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

TOP = 5


@dataclass(frozen=True, slots=True)
class MaskedDocument:
    """`ids` (n,): what the model sees. `positions` (k,): asked for; `labels`: the truth; `shown`: which are [MASK]."""

    source: str
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    shown: NDArray[np.bool_]


@dataclass(slots=True)
class Tally:
    """Running counts for one source."""

    documents: int = 0
    masked: int = 0
    top1: int = 0
    top5: int = 0
    shown: int = 0
    shown_top1: int = 0
    nll: float = 0.0

    def add(self, document: MaskedDocument, top: NDArray[np.int64], nll: NDArray[np.float64]) -> None:
        """`top` (k, 5): predictions, best first; `nll` (k,): negative log-likelihoods of the true tokens in nats."""
        hits = top == document.labels[:, None]
        self.documents += 1
        self.masked += len(document.labels)
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.any(axis=1).sum())
        self.shown += int(document.shown.sum())
        self.shown_top1 += int(hits[document.shown, 0].sum())
        self.nll += float(nll.sum())

    def counts(self) -> FillMaskCounts:
        """Counts as rates."""
        return FillMaskCounts(
            documents=self.documents,
            masked=self.masked,
            top1=self.top1 / self.masked,
            top5=self.top5 / self.masked,
            top1_mask_only=self.shown_top1 / self.shown if self.shown else None,
            nll=self.nll / self.masked,
        )


def mask_ids(
    ids: NDArray[np.int64],
    special_ids: NDArray[np.int64],
    mask_id: int,
    replacements: NDArray[np.int64],
    probability: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Corrupted ids (n,), the positions asked for (k,) in order, and which of them are shown as [MASK] (k,).

    k is the rounded share of maskable tokens, at least one; special tokens never are. k is 0 when all are special.
    """
    maskable = np.flatnonzero(~np.isin(ids, special_ids))
    count = min(len(maskable), max(1, round(probability * len(maskable))))
    positions = np.sort(rng.permutation(maskable)[:count])
    draw = rng.random(count)
    shown = draw < 0.8
    swapped = (draw >= 0.8) & (draw < 0.9)
    corrupted = ids.copy()
    corrupted[positions[shown]] = mask_id
    corrupted[positions[swapped]] = rng.choice(replacements, int(swapped.sum()))
    return corrupted, positions, shown


def mask_documents(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], settings: FillMaskSettings
) -> list[MaskedDocument]:
    """The questions that a model with this tokenizer is asked, in the order of the chosen documents."""
    if tokenizer.mask_token_id is None:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer has no mask token, which fill-mask needs: a causal model is "
            "evaluated with `mecellem evaluate perplexity`"
        )
    chosen = choose_documents(documents, settings.mask_documents, settings.mask_seed)
    texts = [document.text for document in chosen]
    encoded = tokenizer(texts, truncation=True, max_length=settings.mask_length)["input_ids"]
    special = np.array(sorted(tokenizer.all_special_ids), dtype=np.int64)
    replacements = np.setdiff1d(np.arange(len(tokenizer), dtype=np.int64), special)
    masked = []
    for document, row in zip(chosen, encoded, strict=True):
        ids = np.array(row, dtype=np.int64)
        rng = np.random.default_rng(int(hash_order(settings.mask_seed, document.id)[:16], 16))
        corrupted, positions, shown = mask_ids(
            ids, special, tokenizer.mask_token_id, replacements, settings.mask_probability, rng
        )
        if len(positions):
            masked.append(MaskedDocument(document.source, corrupted, positions, ids[positions], shown))
    if not masked:
        raise UserError("no token of the test split can be masked: its documents are empty for this tokenizer")
    return masked


def length_batches(masked: Sequence[MaskedDocument], batch_tokens: int) -> Iterator[list[MaskedDocument]]:
    """Documents of similar length together, so that hardly a token is padding; a batch has at least one document."""
    batch: list[MaskedDocument] = []
    for document in sorted(masked, key=lambda item: len(item.ids)):
        if batch and (len(batch) + 1) * len(document.ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(document)
    yield batch


def scores_of(tallies: dict[str, Tally], settings: FillMaskSettings) -> FillMaskScores:
    """Tallies by source as rates, and all sources together."""
    total = Tally()
    for tally in tallies.values():
        for name in Tally.__slots__:
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    return FillMaskScores(
        probability=settings.mask_probability,
        corruption="80/10/10",
        all=total.counts(),
        by_source={source: tallies[source].counts() for source in sorted(tallies)},
    )


def _forward(model: Any, batch: Sequence[MaskedDocument], pad_id: int) -> torch.Tensor:
    """Logits (total k, vocabulary) at the positions asked for, document after document."""
    import torch

    width = max(len(item.ids) for item in batch)
    ids = np.full((len(batch), width), pad_id, dtype=np.int64)
    attention = np.zeros((len(batch), width), dtype=np.int64)
    labels = np.full((len(batch), width), -100, dtype=np.int64)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = item.ids
        attention[row, : len(item.ids)] = 1
        labels[row, item.positions] = item.labels
    as_tensor = lambda array: torch.from_numpy(array).to(model.device)  # noqa: E731
    with torch.inference_mode():
        output = model(input_ids=as_tensor(ids), attention_mask=as_tensor(attention), labels=as_tensor(labels))
    logits: torch.Tensor = output.logits
    # With sparse prediction the model returns the masked rows only; other masked models return every row.
    return logits if logits.dim() == 2 else logits[as_tensor(labels) != -100]


def fill_mask(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    settings: FillMaskSettings,
    title: str = "fill-mask",
) -> FillMaskScores:
    """Accuracy and mean negative log-likelihood (nats) of `model` (fp32, evaluation mode) on masked test documents."""
    import torch

    masked = mask_documents(tokenizer, documents, settings)
    tallies: dict[str, Tally] = defaultdict(Tally)
    model.sparse_prediction = True  # ModernBERT computes the head at masked positions only: exact, and much cheaper
    with progress_bar(transient=True) as bar:
        task = bar.add_task(title, total=len(masked))
        for batch in length_batches(masked, settings.mask_batch_tokens):
            logits = _forward(model, batch, tokenizer.pad_token_id or 0).float()
            labels = torch.from_numpy(np.concatenate([item.labels for item in batch])).to(logits.device)
            nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double().cpu().numpy()
            top = logits.topk(min(TOP, logits.shape[1])).indices.cpu().numpy()
            ends = np.cumsum([len(item.labels) for item in batch])[:-1]
            for item, rows, losses in zip(batch, np.split(top, ends), np.split(nll, ends), strict=True):
                tallies[item.source].add(item, rows, losses)
            bar.advance(task, len(batch))
    return scores_of(tallies, settings)


def count_tokens(tokenizer: PreTrainedTokenizerBase, documents: Iterable[Document], chunk: int = 2000) -> NDArray[np.int64]:
    """How often each id (vocabulary,) occurs in `documents`, special tokens not added."""
    counts = np.zeros(len(tokenizer), dtype=np.int64)
    texts = [document.text for document in documents]
    with progress_bar(transient=True) as bar:
        task = bar.add_task("counting tokens of the train split", total=len(texts))
        for start in range(0, len(texts), chunk):
            part = texts[start : start + chunk]
            rows = tokenizer(part, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
            counts += np.bincount(np.concatenate([np.array(row, np.int64) for row in rows]), minlength=len(counts))
            bar.advance(task, len(part))
    return counts


def unigram(
    tokenizer: PreTrainedTokenizerBase,
    train: Iterable[Document],
    test: Sequence[Document],
    settings: FillMaskSettings,
) -> FillMaskScores:
    """The baseline that ignores context: always the train split's most frequent tokens, on the very same positions.

    Its negative log-likelihood uses train frequencies with one added to every count.
    """
    counts = count_tokens(tokenizer, train)
    order = np.argsort(-counts, kind="stable")[:TOP]
    nll = -np.log((counts + 1) / (counts.sum() + len(counts)))
    tallies: dict[str, Tally] = defaultdict(Tally)
    for document in mask_documents(tokenizer, test, settings):
        tallies[document.source].add(document, np.tile(order, (len(document.labels), 1)), nll[document.labels])
    return scores_of(tallies, settings)
