"""Log-probabilities of hidden tokens under one model: rows of similar length together, the head at asked positions only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.fill_mask.tokens import Ints
from mecellem.console import progress_bar

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
TOP = 5
BEST = TOP + 1  # one more than is counted: so many equal scores are a tie, and a tie is no hit
LOGITS_BYTES = 1 << 29  # of one batch, in fp32: large vocabularies get smaller batches


@dataclass(frozen=True, slots=True)
class Row:
    """`ids` `[n]`: what the model sees; `positions` `[k]`: places asked for, one more than once for several `labels` `[k]`."""

    ids: Ints
    positions: Ints
    labels: Ints


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one row: log-probabilities (nats) of its labels `[k]`, and of the best tokens there `[k, 6]`, best first."""

    label: Floats
    best: Floats


def batches(rows: Sequence[Row], most_tokens: int, most_asked: int) -> Iterator[list[int]]:
    """Numbers of rows of similar length, longest first; at most so many tokens and questions together, but at least a row."""
    batch: list[int] = []
    longest = asked = 0
    for number in sorted(range(len(rows)), key=lambda number: (-len(rows[number].ids), number)):
        row = rows[number]
        full = (len(batch) + 1) * longest > most_tokens or asked + len(row.positions) > most_asked
        if batch and full:
            yield batch
            batch, asked = [], 0
        if not batch:
            longest = len(row.ids)  # the first is the longest
        batch.append(number)
        asked += len(row.positions)
    if batch:
        yield batch


@contextmanager
def head_only_at(model: Any, places: torch.Tensor) -> Iterator[None]:
    """Within the block the model's head sees the encoder's outputs at `places` (flat, `[m]`) alone.

    Logits are then `[1, m, vocabulary]`. The head works place by place in every masked language model, so they are the same.
    """

    def select(module: Any, inputs: Any, output: Any) -> Any:
        chosen = output[0].flatten(0, 1)[places].unsqueeze(0)
        if isinstance(output, tuple):
            return (chosen, *output[1:])
        output.last_hidden_state = chosen
        return output

    handle = model.base_model.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _forward(model: Any, batch: Sequence[Row], pad_id: int) -> tuple[Floats, Floats]:
    """Log-probabilities of all labels of a batch `[total k]`, and of the best tokens `[total k, 6]`."""
    import torch

    lengths = [len(row.ids) for row in batch]
    width = max(lengths)
    ids = np.full((len(batch), width), pad_id, dtype=np.int64)
    for number, row in enumerate(batch):
        ids[number, : lengths[number]] = row.ids
    flat = np.concatenate([number * width + row.positions for number, row in enumerate(batch)])
    places, which = np.unique(flat, return_inverse=True)
    put = lambda array: torch.from_numpy(array).to(model.device)  # noqa: E731
    # rows of one length need no mask, and without one attention takes its fast way
    attention = None if min(lengths) == width else put((np.arange(width) < np.array(lengths)[:, None]).astype(np.int64))
    with torch.inference_mode(), head_only_at(model, put(places)):
        logits = model(input_ids=put(ids), attention_mask=attention).logits[0]
        logs = logits.float().log_softmax(-1)
        labels = logs[put(which), put(np.concatenate([row.labels for row in batch]))]
        best = logs.topk(min(BEST, logs.shape[1])).values[put(which)]
    return labels.double().cpu().numpy(), best.double().cpu().numpy()


def score_rows(model: Any, rows: Sequence[Row], pad_id: int, batch_tokens: int, title: str) -> list[Answers]:
    """The answers to all rows, in their order. `model`: of transformers, in evaluation mode."""
    found: list[Answers | None] = [None] * len(rows)
    most_asked = max(1, LOGITS_BYTES // (4 * model.config.vocab_size))
    with progress_bar(transient=True) as bar:
        task = bar.add_task(title, total=len(rows))
        for batch in batches(rows, batch_tokens, most_asked):
            labels, best = _forward(model, [rows[number] for number in batch], pad_id)
            ends = np.cumsum([len(rows[number].positions) for number in batch])[:-1]
            parts = zip(batch, np.split(labels, ends), np.split(best, ends), strict=True)
            for number, label, top in parts:
                found[number] = Answers(label, top)
            bar.advance(task, len(batch))
    return [answers for answers in found if answers is not None]


def hits(answers: Answers, group: Ints) -> tuple[bool, bool]:
    """Whether the labels `group` (numbers of questions) are together the first choice, and among the five first choices.

    The pieces of a word are hidden together, so the model's choices for the word are the sequences of choices for each
    piece, by the product of their probabilities; the six best come from the six best of each piece. A tie is no hit.
    """
    score, best = answers.label[group[0]], answers.best[group[0]]
    for number in group[1:]:
        score = score + answers.label[number]
        best = np.sort(np.add.outer(best, answers.best[number]).ravel())[::-1][:BEST]
    as_good = int((best >= score).sum())
    return as_good <= 1, as_good <= TOP
