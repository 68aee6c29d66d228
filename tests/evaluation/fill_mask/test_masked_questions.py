"""What is hidden: 80/10/10, whole words, the pseudo-perplexity's rows against a loop that hides one token at a time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masked_models import TEXTS

from evaluation.fill_mask.measures import pseudo_of_model
from evaluation.fill_mask.passages import Passage
from evaluation.fill_mask.questions import TokenMasker, chosen_words, mask_ids, pll_rows, word_question
from evaluation.fill_mask.settings import FillMaskSettings
from evaluation.fill_mask.tokens import encode, word_spans
from mecellem.errors import UserError
from post_training.model_folder import load_masked_lm, load_tokenizer

SPECIAL = np.array([0, 1, 2, 3, 4])


@given(st.lists(st.integers(0, 99), min_size=1, max_size=200), st.floats(0.01, 1), st.integers(0, 2**32))
def test_token_masking_properties(ids, probability, seed):
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


def test_masks_are_80_10_10():
    ids = np.full(200_000, 7)
    corrupted, positions, shown = mask_ids(ids, SPECIAL, 4, np.arange(5, 10_000), 0.15, np.random.default_rng(0))
    assert len(positions) == 30_000
    assert abs(shown.mean() - 0.8) < 0.01
    assert abs((corrupted[positions] == 7).mean() - 0.1) < 0.01


def test_token_masks_depend_on_the_document_and_the_seed(masked_folder: Path):
    tokenizer = load_tokenizer(masked_folder)
    (text,) = encode(tokenizer, TEXTS[:1])
    first, again = (TokenMasker(tokenizer, 0.15, 0).row("a", text.ids)[0] for _ in range(2))
    assert np.array_equal(first.ids, again.ids)
    for seed, key in ((1, "a"), (0, "b")):
        assert not np.array_equal(TokenMasker(tokenizer, 0.15, seed).row(key, text.ids)[0].positions, first.positions)


def test_hidden_words_are_whole_and_the_same_for_every_tokenizer(masked_folders: dict[str, Path]):
    text = " ".join(TEXTS)
    spans = chosen_words("id", text, 0.15, 0)
    words = word_spans(text)
    assert set(spans) <= set(words) and len(spans) == round(0.15 * len(words)) and spans == sorted(spans)
    for folder in masked_folders.values():
        tokenizer = load_tokenizer(folder)
        (encoded,) = encode(tokenizer, [text])
        question = word_question(encoded, spans, tokenizer.mask_token_id, tokenizer.unk_token_id)
        hidden = np.flatnonzero(question.row.ids != encoded.ids)
        assert set(hidden) == set(np.concatenate([encoded.touching(span) for span in spans]))
        assert (question.row.ids[hidden] == tokenizer.mask_token_id).all()
        assert np.array_equal(question.row.labels, encoded.ids[question.row.positions])
        asked = [question.row.positions[group].tolist() for group in question.groups]
        assert asked == [encoded.touching(span).tolist() for span in spans if _writable(tokenizer, encoded, span)]


def _writable(tokenizer, encoded, span) -> bool:
    return tokenizer.unk_token_id not in encoded.ids[encoded.touching(span)]


def test_words_that_cannot_be_written_count_as_wrong(masked_folders: dict[str, Path]):
    tokenizer = load_tokenizer(masked_folders["wordpiece"])
    (encoded,) = encode(tokenizer, ["Bir 漢字 metni"])
    spans = word_spans(encoded.text)
    question = word_question(encoded, spans, tokenizer.mask_token_id, tokenizer.unk_token_id)
    assert len(spans) == 3 and len(question.groups) == 2


SENTENCES = ["Kanun'un üçüncü maddesi (ek) yürürlüktedir.", "Iğdır ovasında “pamuk” açtı; ılık sabah.", "ş", "Bir\n\niki  üç!"]


def naive_pll(folder: Path, sentence: str) -> tuple[float, int]:
    """One forward pass a token; words are maximal runs of tokens between which white space or a sign lies."""
    import re

    tokenizer, model = load_tokenizer(folder), load_masked_lm(folder, "cpu")
    found = tokenizer(sentence, return_offsets_mapping=True)
    ids = found["input_ids"]
    unit_of = {}
    for number, match in enumerate(re.finditer(r"\w+(?:['’]\w+)*|[^\w\s]", sentence)):
        unit_of |= dict.fromkeys(range(*match.span()), number)
    units = [{unit_of[place] for place in range(start, end) if place in unit_of} for start, end in found["offset_mapping"]]
    total, count = 0.0, 0
    for position, own in enumerate(units):
        if not own:
            continue
        seen, later = set(own), [position]
        for after in range(position + 1, len(units)):
            if units[after] & seen:
                later.append(after)
                seen |= units[after]
        masked = torch.tensor([ids])
        masked[0, later] = tokenizer.mask_token_id
        with torch.inference_mode():
            total += float(model(input_ids=masked).logits[0, position].log_softmax(-1)[ids[position]])
        count += 1
    return total, count


def test_pseudo_likelihood_equals_one_mask_at_a_time(masked_folder: Path):
    tokenizer, model = load_tokenizer(masked_folder), load_masked_lm(masked_folder, "cpu")
    passages = [Passage(str(number), "a", sentence) for number, sentence in enumerate(SENTENCES)]
    columns = pseudo_of_model(model, tokenizer, passages, FillMaskSettings(mask_batch_tokens=300)).values
    for number, sentence in enumerate(SENTENCES):
        expected, count = naive_pll(masked_folder, sentence)
        assert columns["tokens"][number] == count > 0
        assert columns["nll"][number] == pytest.approx(-expected, rel=1e-4)
        assert columns["bytes"][number] == len(sentence.encode())
    assert columns["words"] == [5, 6, 1, 3]


def test_the_first_piece_never_sees_its_words_other_pieces(masked_folders: dict[str, Path]):
    tokenizer = load_tokenizer(masked_folders["wordpiece"])
    (encoded,) = encode(tokenizer, ["balıkçılıktaydı"])
    rows = pll_rows(encoded, tokenizer.mask_token_id)
    assert len(rows) > 2
    for number, row in enumerate(rows):
        assert (row.ids[1 + number : -1] == tokenizer.mask_token_id).all()
        assert np.array_equal(row.ids[1 : 1 + number], encoded.ids[1 : 1 + number])


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"mask_probability": 0}, "--mask-probability"),
        ({"mask_probability": 1.1}, "--mask-probability"),
        ({"mask_documents": 0}, "--mask-documents"),
        ({"mask_words": 0}, "--mask-words"),
        ({"pll_sentences": -1}, "--pll-sentences"),
        ({"cloze_items": -1}, "--cloze-items"),
        ({"domain_field": ""}, "--domain-field"),
        ({"mask_probability": math.nan}, "--mask-probability"),
    ],
)
def test_bad_fill_mask_settings(values, flag):
    with pytest.raises(UserError, match=flag):
        FillMaskSettings(**values)
