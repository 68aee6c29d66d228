"""Batched log-probabilities equal a naive loop over rows with all logits; whole words equal a search of all sequences."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masked_models import TEXTS

from evaluation.fill_mask.questions import TokenMasker
from evaluation.fill_mask.scoring import Answers, Row, batches, hits, score_rows
from evaluation.fill_mask.tokens import encode
from post_training.model_folder import load_masked_lm, load_tokenizer


def rows_of(folder: Path) -> list[Row]:
    tokenizer = load_tokenizer(folder)
    masker = TokenMasker(tokenizer, 0.3, 0)
    rows = [masker.row(text.text, text.ids)[0] for text in encode(tokenizer, [*TEXTS, "Kısa.", TEXTS[0][:30]])]
    again = Row(rows[0].ids, rows[0].positions[[0, 0, 2, 1]], np.array([7, 9, 11, 7]))  # places asked for twice, out of order
    return [*rows, again]


def naive(folder: Path, rows: list[Row]) -> list[torch.Tensor]:
    model = load_masked_lm(folder, "cpu")
    with torch.inference_mode():
        return [model(input_ids=torch.from_numpy(row.ids[None])).logits[0, row.positions].log_softmax(-1) for row in rows]


@pytest.mark.parametrize("batch_tokens", [1, 100, 8192])
def test_answers_equal_a_naive_loop(masked_folder: Path, batch_tokens: int):
    rows = rows_of(masked_folder)
    found = score_rows(load_masked_lm(masked_folder, "cpu"), rows, 0, batch_tokens, "")
    assert len(found) == len(rows)
    for row, answers, logs in zip(rows, found, naive(masked_folder, rows), strict=True):
        expected = logs[torch.arange(len(row.labels)), torch.from_numpy(row.labels)].numpy()
        assert answers.label == pytest.approx(expected, abs=1e-3)
        assert answers.best == pytest.approx(logs.topk(6).values.numpy(), abs=1e-3)


def test_the_models_head_is_whole_again_afterwards(masked_folder: Path):
    model = load_masked_lm(masked_folder, "cpu")
    rows = rows_of(masked_folder)
    score_rows(model, rows, 0, 100, "")
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(rows[0].ids[None])).logits
    assert logits.shape[:2] == (1, len(rows[0].ids))


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5)), min_size=1, max_size=40), st.integers(1, 200), st.integers(1, 12)
)
def test_batches_hold_every_row_once_and_stay_small(sizes, most_tokens, most_asked):
    rows = [Row(np.zeros(length, np.int64), np.zeros(asked, np.int64), np.zeros(asked, np.int64)) for length, asked in sizes]
    made = list(batches(rows, most_tokens, most_asked))
    assert sorted(number for batch in made for number in batch) == list(range(len(rows)))
    for batch in made:
        longest = max(len(rows[number].ids) for number in batch)
        asked = sum(len(rows[number].positions) for number in batch)
        assert len(batch) == 1 or (len(batch) * longest <= most_tokens and asked <= most_asked)


@given(st.integers(1, 3), st.integers(7, 9), st.integers(0, 2**32), st.booleans())
def test_a_words_place_is_that_among_all_sequences(pieces, vocabulary, seed, rounded):
    rng = np.random.default_rng(seed)
    logs = np.log(rng.dirichlet(np.ones(vocabulary), size=pieces))
    if rounded:  # many ties
        logs = np.round(logs)
    labels = rng.integers(0, vocabulary, pieces)
    best = -np.sort(-logs, axis=1)[:, :6]
    answers = Answers(logs[np.arange(pieces), labels], best)
    own = sum(logs[number, labels[number]] for number in range(pieces))
    scores = [sum(parts) for parts in itertools.product(*logs)]
    as_good = sum(score >= own for score in scores)
    assert hits(answers, np.arange(pieces)) == (as_good == 1, as_good <= 5)


def test_a_model_that_says_the_same_of_everything_is_never_right(masked_folder: Path):
    model = load_masked_lm(masked_folder, "cpu")
    for parameter in model.parameters():
        parameter.data.zero_()
    for answers in score_rows(model, rows_of(masked_folder), 0, 8192, ""):
        assert answers.label == pytest.approx(-np.log(model.config.vocab_size), rel=1e-6)
        assert all(hits(answers, np.array([number])) == (False, False) for number in range(len(answers.label)))
