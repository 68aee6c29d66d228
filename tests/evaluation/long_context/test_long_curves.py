"""Encoders that look at known places are seen to do so; masks by place equal a naive loop; the same tokens at every length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from long_documents import PlaceEncoder, long_documents, write_masked_lm

from evaluation.long_context import masking, needle, position
from evaluation.long_context.encoders import encode_whole
from evaluation.long_context.masking import TokenScores, choose_stretches, curve, edges, frame_of, score_length
from evaluation.long_context.needle import margins, places
from evaluation.long_context.needles import Needle
from evaluation.long_context.windows import Library
from post_training.model_folder import load_masked_lm, load_tokenizer

NEEDLES = [
    Needle(f"Kod{number} anahtar{number} sandık{number} dolap{number}.", f"Kod{number} dolap{number}") for number in range(8)
]
DEPTHS = (0.0, 50.0, 100.0)


def windows_of(encoder: PlaceEncoder, length: int, most: int):
    return Library(long_documents(8), lambda texts: encoder.lengths(texts, "document"), 0).windows(length, most, 8)


def test_places_and_margins_by_hand():
    similarities = np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.8, 0.7, 0.6]], dtype=np.float32)
    assert places(similarities).tolist() == [1, 2, 3]  # a tie is lost
    assert margins(similarities) == pytest.approx([0.75, 0.2, -0.15], abs=1e-6)


@pytest.mark.parametrize("rounds", [1, 2])
def test_needles_are_found_where_the_encoder_looks(rounds: int):
    parts = [NEEDLES[:4], NEEDLES[4:]][:rounds]
    everywhere, beginning = PlaceEncoder(lambda place: 1.0), PlaceEncoder(lambda place: float(place < 0.4))
    for encoder, seen in ((everywhere, [True, True, True]), (beginning, [True, False, False])):
        found = needle.measure_length(encoder, windows_of(encoder, 200, 4), parts, 200, DEPTHS, 0)
        assert [cell.accuracy.value == 1 for cell in found.cells] == seen
        assert [(cell.length, cell.depth, cell.queries, cell.candidates) for cell in found.cells] == [
            (200, depth, 4 * rounds, 4) for depth in DEPTHS
        ]
        for cell in found.cells:  # what is not seen is found by chance
            assert cell.accuracy.value in (1, 0, 0.25) and (cell.margin > 0.05) == (cell.mrr == 1) == (cell.accuracy.value == 1)


def test_every_text_fits_and_has_its_needle(monkeypatch: pytest.MonkeyPatch):
    encoder = PlaceEncoder(lambda place: 1.0, limit=150)
    seen: list[str] = []
    original = encoder.vectors
    monkeypatch.setattr(encoder, "vectors", lambda texts, role: (seen.extend(texts), original(texts, role))[1])
    # windows without room for the needle: the text is made shorter, never the needle
    windows = Library(long_documents(8), lambda texts: encoder.lengths(texts, "document"), 0).windows(150, 4)
    needle.measure_length(encoder, windows, [NEEDLES[:4]], 150, DEPTHS, 0)
    documents = [text for text in seen if len(text.split()) > 10]
    assert len(documents) == 12 and all(130 <= encoder.lengths([text], "document")[0] <= 150 for text in documents)
    assert all(sum(item.fact in text for text in documents) == 3 for item in NEEDLES[:4])
    assert encoder.counts.truncated == 0
    with pytest.raises(AssertionError, match="cut 1 texts"):
        encode_whole(encoder, ["bir " * 300], "document")


def test_the_curve_shows_where_the_vector_looks_and_nothing_of_what_the_text_says():
    flat, falling = PlaceEncoder(lambda place: 1.0), PlaceEncoder(lambda place: 2.0 - 1.8 * place)
    found = position.measure_length(flat, windows_of(flat, 300, 4), 300, 8, 0)
    assert found.documents == 4 and len(found.similarity) == 8
    assert [rate.value for rate in found.relative] == pytest.approx([0] * 8, abs=1e-6)
    assert found.first_minus_last.value == pytest.approx(0, abs=1e-6)
    found = position.measure_length(falling, windows_of(falling, 300, 4), 300, 8, 0)
    values = [rate.value for rate in found.relative]
    assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(0, abs=1e-9)
    low, high = found.first_minus_last.interval
    assert 0 < low <= found.first_minus_last.value <= high


# ---- masked language models


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_lm(tmp_path_factory.mktemp("masked") / "lm")


def test_stretches_are_whole_windows_of_real_text(masked_lm: Path):
    tokenizer = load_tokenizer(masked_lm)
    documents = long_documents(3)
    found = choose_stretches(tokenizer, documents, 256, 5, 0.15, 0)
    assert sum(len(stretch.content) for stretch in found) == 5 * 254
    texts = {document.id: document.text for document in documents}
    for stretch in found:
        assert len(stretch.content) % 254 == 0
        assert len(stretch.hidden) == round(0.15 * len(stretch.content)) and (np.diff(stretch.hidden) > 0).all()
        assert texts[stretch.key].startswith(tokenizer.decode(stretch.content[:200], clean_up_tokenization_spaces=False))
    assert choose_stretches(tokenizer, documents, 100_000, 5, 0.15, 0) == []


def test_masks_by_place_equal_a_naive_loop(masked_lm: Path):
    tokenizer, model = load_tokenizer(masked_lm), load_masked_lm(masked_lm, "cpu")
    stretches = choose_stretches(tokenizer, long_documents(2), 200, 3, 0.15, 0)
    found = score_length(model, frame_of(tokenizer), stretches, 90, 400)
    expected = []
    for stretch in stretches:
        hidden = set(stretch.hidden.tolist())
        content = [tokenizer.mask_token_id if place in hidden else int(token) for place, token in enumerate(stretch.content)]
        for start in range(0, len(content), 88):
            ids = torch.tensor([[tokenizer.cls_token_id, *content[start : start + 88], tokenizer.sep_token_id]])
            with torch.inference_mode():
                logs = model(input_ids=ids).logits[0].log_softmax(-1)
            for place in sorted(hidden & set(range(start, start + 88))):
                truth = int(stretch.content[place])
                row = logs[place - start + 1]
                expected.append((-float(row[truth]), float(row.argmax() == truth), place - start + 1))
    assert found.place == [place for _, _, place in expected] and len(expected) > 80
    assert found.right == [right for _, right, _ in expected]
    assert found.nll == pytest.approx([nll for nll, _, _ in expected], abs=2e-3)
    assert len(set(found.window)) == sum(-(-len(stretch.content) // 88) for stretch in stretches)


def test_a_model_without_attention_gains_nothing_from_length(masked_lm: Path):
    """Its predictions depend on no other token: the same token has the same loss at every place."""
    tokenizer, model = load_tokenizer(masked_lm), load_masked_lm(masked_lm, "cpu")
    for layer in model.model.layers:
        layer.attn.Wo.weight.data.zero_()
    stretches = choose_stretches(tokenizer, long_documents(2), 400, 2, 0.15, 0)
    short, long = (score_length(model, frame_of(tokenizer), stretches, length, 800) for length in (80, 400))
    assert long.nll == pytest.approx(short.nll, abs=1e-4) and long.place != short.place
    found = curve(long, short, 400, 0)
    assert all(abs(bucket.against_short.value) < 1e-4 for bucket in found.buckets) and found.windows == 2
    assert found.nll.value == pytest.approx(np.mean(long.nll))


def test_buckets_by_hand():
    assert edges(64) == [0, 64] and edges(300) == [0, 64, 128, 256, 300] and edges(512) == [0, 64, 128, 256, 512]
    scores = TokenScores(nll=[1, 2, 3, 5], right=[1, 0, 0, 1], place=[3, 70, 99, 10], window=[0, 0, 1, 1], seconds=0)
    short = TokenScores(nll=[2, 2, 2, 2], right=[0] * 4, place=[1] * 4, window=[0] * 4, seconds=0)
    found = curve(scores, short, 128, 0)
    assert [(bucket.start, bucket.end, bucket.tokens) for bucket in found.buckets] == [(0, 64, 2), (64, 128, 2)]
    assert [bucket.nll.value for bucket in found.buckets] == [3, 2.5]
    assert [bucket.accuracy.value for bucket in found.buckets] == [1, 0]
    assert [bucket.against_short.value for bucket in found.buckets] == [1, 0.5]
    assert (found.windows, found.tokens, found.nll.value, found.against_short.value) == (2, 4, 2.75, 0.75)
    assert masking.curve(scores, None, 128, 0).against_short is None
