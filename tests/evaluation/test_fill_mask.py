from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluation.choice import choose_documents
from evaluation.fill_mask import (
    MaskedDocument,
    Tally,
    count_tokens,
    fill_mask,
    length_batches,
    mask_documents,
    mask_ids,
    unigram,
)
from evaluation.settings import FillMaskSettings
from mecellem.errors import UserError
from post_training.model_folder import load_masked_lm, load_tokenizer
from preprocessing.corpus.document import Document

SETTINGS = FillMaskSettings(mask_documents=60, mask_length=96)
SPECIAL = np.array([0, 1, 2, 3, 4])


@given(
    ids=st.lists(st.integers(0, 99), min_size=1, max_size=200),
    probability=st.floats(0.01, 1),
    seed=st.integers(0, 2**32),
)
def test_masking_properties(ids, probability, seed):
    ids = np.array(ids)
    rng = np.random.default_rng(seed)
    corrupted, positions, shown = mask_ids(ids, SPECIAL, 4, np.arange(5, 100), probability, rng)
    maskable = np.flatnonzero(ids > 4)
    assert set(positions) <= set(maskable), "a special token was chosen"
    assert len(positions) == (max(1, round(probability * len(maskable))) if len(maskable) else 0)
    assert (np.diff(positions) > 0).all()
    assert (corrupted[positions[shown]] == 4).all() and not np.isin(corrupted[positions[~shown]], SPECIAL).any()
    untouched = np.setdiff1d(np.arange(len(ids)), positions)
    assert (corrupted[untouched] == ids[untouched]).all()


def test_80_10_10():
    ids = np.full(200_000, 7)
    corrupted, positions, shown = mask_ids(ids, SPECIAL, 4, np.arange(5, 10_000), 0.15, np.random.default_rng(0))
    assert len(positions) == 30_000
    assert abs(shown.mean() - 0.8) < 0.01
    assert abs((corrupted[positions] == 7).mean() - 0.1) < 0.01


def test_masks_depend_on_the_document_alone(small_model, test_documents):
    tokenizer = load_tokenizer(small_model)
    all_of_them = dataclasses.replace(SETTINGS, mask_documents=len(test_documents))
    alone = mask_documents(tokenizer, test_documents[:1], all_of_them)[0]
    together = mask_documents(tokenizer, test_documents, all_of_them)
    assert any(np.array_equal(alone.ids, item.ids) for item in together)
    other = mask_documents(tokenizer, test_documents[:1], dataclasses.replace(all_of_them, mask_seed=1))[0]
    assert not np.array_equal(alone.positions, other.positions)


def test_real_masks_never_touch_special_tokens(small_model, test_documents):
    tokenizer = load_tokenizer(small_model)
    for item in mask_documents(tokenizer, test_documents, SETTINGS):
        assert item.ids[0] == tokenizer.cls_token_id and item.ids[-1] == tokenizer.sep_token_id
        assert len(item.ids) <= SETTINGS.mask_length
        assert not np.isin(item.labels, tokenizer.all_special_ids).any()


def test_sources_take_turns():
    documents = [Document(f"{source}{n}", source, "x", "", "") for source, count in (("a", 50), ("b", 3)) for n in range(count)]
    chosen = choose_documents(documents, 10, 0)
    assert [document.source for document in chosen].count("b") == 3 and len(chosen) == 10
    assert choose_documents(documents[::-1], 10, 0) == chosen
    assert len(choose_documents(documents, 100, 0)) == 53


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(10, 200))
def test_batches_hold_every_document_once_and_stay_small(lengths, tokens):
    none = np.array([], dtype=np.int64)
    documents = [MaskedDocument(str(n), np.zeros(k, np.int64), none, none, none == 0) for n, k in enumerate(lengths)]
    batches = list(length_batches(documents, tokens))
    assert sorted(item.source for batch in batches for item in batch) == sorted(item.source for item in documents)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(item.ids) for item in batch) <= tokens


def test_tally_by_hand():
    tally = Tally()
    item = MaskedDocument("a", np.zeros(9, np.int64), np.arange(4), np.array([5, 6, 7, 8]), np.array([True, True, False, True]))
    top = np.array([[5, 0, 0, 0, 0], [0, 6, 0, 0, 0], [7, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    tally.add(item, top, np.array([1.0, 2.0, 3.0, 4.0]))
    counts = tally.counts()
    assert (counts.top1, counts.top5, counts.nll) == (0.5, 0.75, 2.5)
    assert counts.top1_mask_only == pytest.approx(1 / 3)


class Oracle(torch.nn.Module):
    """Knows the answer: its logits are the labels'; a wrong place in the batch would show."""

    device = torch.device("cpu")

    def __init__(self, vocabulary: int, sure: float):
        super().__init__()
        self.vocabulary, self.sure = vocabulary, sure

    def forward(self, input_ids, attention_mask, labels):
        return SimpleNamespace(logits=torch.nn.functional.one_hot(labels.clamp(min=0), self.vocabulary) * self.sure)


def test_a_perfect_model_scores_one_and_a_blind_one_the_uniform_loss(small_model, test_documents):
    tokenizer = load_tokenizer(small_model)
    perfect = fill_mask(Oracle(len(tokenizer), 100.0), tokenizer, test_documents, SETTINGS)
    assert perfect.all.top1 == perfect.all.top5 == perfect.all.top1_mask_only == 1
    assert perfect.all.nll == pytest.approx(0, abs=1e-6)
    blind = fill_mask(Oracle(len(tokenizer), 0.0), tokenizer, test_documents, SETTINGS)
    assert blind.all.nll == pytest.approx(math.log(len(tokenizer)), rel=1e-5)


def test_batching_and_sparse_head_do_not_change_the_scores(small_model, test_documents):
    tokenizer, model = load_tokenizer(small_model), load_masked_lm(small_model, "cpu")
    together = fill_mask(model, tokenizer, test_documents, SETTINGS)
    alone = fill_mask(model, tokenizer, test_documents, dataclasses.replace(SETTINGS, mask_batch_tokens=1))
    assert alone.all.top1 == pytest.approx(together.all.top1, abs=2 / together.all.masked)
    assert alone.all.nll == pytest.approx(together.all.nll, rel=1e-5)
    # the same by plain transformers, one document at a time, all logits
    model.sparse_prediction = False
    nll = []
    for item in mask_documents(tokenizer, test_documents, SETTINGS):
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(item.ids)[None]).logits[0, item.positions]
        nll.append(torch.nn.functional.cross_entropy(logits, torch.from_numpy(item.labels), reduction="sum").item())
    assert sum(nll) / together.all.masked == pytest.approx(together.all.nll, rel=1e-5)


def test_unigram_answers_with_the_commonest_train_token(small_model, test_documents):
    tokenizer = load_tokenizer(small_model)
    train = [Document("t", "a", "x", "", "ve ve ve bir")]
    counts = count_tokens(tokenizer, train)
    common = int(counts.argmax())
    masked = mask_documents(tokenizer, test_documents, SETTINGS)
    labels = np.concatenate([item.labels for item in masked])
    scores = unigram(tokenizer, train, test_documents, SETTINGS)
    assert scores.all.masked == len(labels)
    assert scores.all.top1 == pytest.approx((labels == common).mean())
    expected = -np.log((counts[labels] + 1) / (counts.sum() + len(counts)))
    assert scores.all.nll == pytest.approx(expected.mean())
    assert counts.sum() == len(tokenizer("ve ve ve bir", add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    "values", [{"mask_probability": 0}, {"mask_probability": 1.1}, {"mask_documents": 0}, {"mask_length": 2}]
)
def test_bad_settings(values):
    with pytest.raises(UserError, match="--mask-"):
        FillMaskSettings(**values)


def test_text_without_tokens_is_told(small_model):
    with pytest.raises(UserError, match="no token of the test split"):
        mask_documents(load_tokenizer(small_model), [Document("a", "a", "x", "", "")], SETTINGS)
