"""Turkish forms, what is a legal term, items of users and of texts, and ranking against a loop over candidates."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from masked_models import LAW, TEXTS

from evaluation.fill_mask.cloze import ClozeItem, frequency_hits, make_items, open_hits, ranks, read_items, too_long
from evaluation.fill_mask.inflection import SLOTS, Noun, Slot, inflect
from evaluation.fill_mask.legal_terms import TERMS, candidates, forms, readings
from evaluation.fill_mask.passages import Reader
from mecellem.errors import UserError
from post_training.model_folder import load_masked_lm, load_tokenizer
from preprocessing.corpus.document import Document

PLURAL_OWN, OWN, BARE = (True, True), (False, True), (False, False)


@pytest.mark.parametrize(
    ("noun", "slot", "form"),
    [
        (Noun("madde"), (*OWN, "genitive"), "maddesinin"),
        (Noun("madde"), (*BARE, "accusative"), "maddeyi"),
        (Noun("madde"), (*BARE, "instrumental"), "maddeyle"),
        (Noun("kanun"), (*OWN, "genitive"), "kanununun"),
        (Noun("kanun"), (*BARE, "locative"), "kanunda"),
        (Noun("hüküm", "hükm"), (*OWN, "locative"), "hükmünde"),
        (Noun("hüküm", "hükm"), (*BARE, "dative"), "hükme"),
        (Noun("hüküm", "hükm"), (True, False, "genitive"), "hükümlerin"),
        (Noun("sanık", "sanığ"), (*BARE, "genitive"), "sanığın"),
        (Noun("sanık", "sanığ"), (*BARE, "ablative"), "sanıktan"),
        (Noun("sanık", "sanığ"), (*PLURAL_OWN, "dative"), "sanıklarına"),
        (Noun("iptal", vowel="e"), (*OWN, "nominative"), "iptali"),
        (Noun("iptal", vowel="e"), (True, False, "nominative"), "iptaller"),
        (Noun("usul", vowel="ü"), (*OWN, "dative"), "usulüne"),
        (Noun("davacı"), (*BARE, "genitive"), "davacının"),
        (Noun("hâkim"), (*BARE, "ablative"), "hâkimden"),
        (Noun("hukuk"), (*OWN, "accusative"), "hukukunu"),
        (Noun("suç"), (*BARE, "locative"), "suçta"),
        (Noun("borç", "borc"), (*BARE, "instrumental"), "borçla"),
        (Noun("iddianame"), (*OWN, "instrumental"), "iddianamesiyle"),
    ],
)
def test_forms(noun: Noun, slot: tuple, form: str):
    assert "".join(inflect(noun, Slot(*slot))) == form


def test_every_term_has_every_form_and_is_found_by_it():
    for noun in TERMS:
        for slot in SLOTS:
            form = "".join(inflect(noun, slot))
            assert any(found == noun and place == slot for found, place, _ in readings(form)), form
    assert len({noun.bare for noun in TERMS}) == len(TERMS)
    assert len(forms()) > 1500


@pytest.mark.parametrize(
    ("word", "bare"),
    [("Kanun’un", "kanun"), ("Kanunu'nun", "kanun"), ("İTİRAZI", "itiraz"), ("ILAMI", None), ("hakimler", "hâkim"),
     ("maddede", "madde"), ("kanuncu", None), ("Ka'nun", None), ("tarafından", None), ("davar", None)],
)  # fmt: skip
def test_what_is_a_term(word: str, bare: str | None):
    assert {noun.bare for noun, _, _ in readings(word)} == ({bare} if bare else set())


def test_candidates_have_the_answers_form_and_spelling():
    found = candidates("Mahkemesinin")
    assert found[0] == "Mahkemesinin" and {"Maddesinin", "Hükmünün", "İtirazının", "İptalinin"} <= set(found)
    assert len(found) == len(TERMS)
    assert {"Madde'nin", "Hükm'ün"} <= set(candidates("Kanun'un"))
    assert {"MADDEYİ", "MADDESİ", "KARARI"} <= set(candidates("KANUNU"))  # accusative or possessive
    assert len(candidates("KANUNU")) > len(TERMS)


def reader(folder: Path, positions: int = 200) -> Reader:
    return Reader("model", load_tokenizer(folder), positions)


def test_items_of_texts_hide_one_term_once(masked_folder: Path):
    documents = [Document(str(number), "a", "", "", text) for number, text in enumerate(TEXTS)]
    items = make_items(documents, [reader(masked_folder)], 50, 0)
    assert len(items) >= 6 and len({item.place for item in items}) == len(items)
    joined = " ".join(" ".join(LAW).split())
    for item in items:
        assert readings(item.answer) and item.sentence(item.answer) in joined
        assert item.answer in item.candidates and len(item.candidates) >= len(TERMS)
    assert make_items(documents[::-1], [reader(masked_folder)], 50, 0) == items
    assert make_items(documents, [reader(masked_folder)], 3, 0) == items[:3]
    assert make_items(documents, [reader(masked_folder, 5)], 50, 0) == []
    twice = Document("t", "a", "", "", "Mahkeme kararını verdi ama ikinci mahkeme onu bozdu nihayet.")
    assert [item.answer for item in make_items([twice], [reader(masked_folder)], 9, 0)] == ["kararını"]


def write(path: Path, *records: dict) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def test_items_of_users(tmp_path: Path):
    path = write(
        tmp_path / "c.jsonl",
        {"text": "Anayasa [MASK] karar verdi.", "answer": "Mahkemesi"},
        {"text": "Bu [MASK] kesindir.", "answer": "hüküm", "candidates": ["hüküm", "karar"]},
    )
    first, second = read_items([path])
    assert first.sentence("Komisyonu") == "Anayasa Komisyonu karar verdi."
    assert first.candidates == ("Mahkemesi", "hüküm") and second.candidates == ("hüküm", "karar")
    assert first.sentence("Komisyonu")[slice(*first.span("Komisyonu"))] == "Komisyonu"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "Bu hüküm kesindir.", "answer": "hüküm"}, r"line 1: .*\[MASK\] 0 times.*in place of 'hüküm'"),
        ({"text": "Bu kesindir.", "answer": "hüküm"}, "where the answer stands"),
        ({"text": "[MASK] ve [MASK]", "answer": "a"}, "2 times"),
        ({"text": "Bu [MASK].", "answer": " "}, '"answer" must be the word'),
        ({"text": "Bu [MASK]."}, '"answer" must be the word'),
        ({"text": "Bu [MASK].", "answer": "a", "candidates": ["b"]}, "'a' is not among"),
        ({"text": "Bu [MASK].", "answer": "a", "candidates": "a"}, "an array of words"),
        ({"answer": "a"}, 'no "text"'),
    ],
)
def test_bad_items_are_refused_with_their_line(record: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        read_items([write(tmp_path / "c.jsonl", record)])


def test_no_items_and_long_items_are_refused(masked_folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match="has no item"):
        read_items([write(tmp_path / "empty.jsonl")])
    items = read_items([write(tmp_path / "c.jsonl", {"text": "çok " * 50 + "[MASK]", "answer": "uzun"})])
    assert too_long(items, [reader(masked_folder, 2000)]) is None
    fault = too_long(items, [reader(masked_folder, 40)])
    assert fault and "c.jsonl, line 1" in fault and "model sees 40" in fault


ITEMS = [
    ClozeItem("1", "Anayasa ", "Mahkemesi", " karar verdi.", ("Mahkemesi", "Komisyonu", "Meclisi", "Maddesi", "Kanunu")),
    ClozeItem("2", "Bu ", "hüküm", " kesindir.", ("karar", "hüküm", "hükümler", "dava")),
    ClozeItem("3", "", "Kanun'un", " ilk maddesi", ("Kanun'un", "Madde'nin")),
]


def naive_score(folder: Path, item: ClozeItem, word: str) -> float:
    tokenizer, model = load_tokenizer(folder), load_masked_lm(folder, "cpu")
    sentence = item.before + word + item.after
    found = tokenizer(sentence, return_offsets_mapping=True)
    start, end = len(item.before), len(item.before) + len(word)
    pieces = [
        place
        for place, (low, high) in enumerate(found["offset_mapping"])
        if any(start <= character < end for character in range(low, high))
    ]
    total = 0.0
    for number, place in enumerate(pieces):
        ids = torch.tensor([found["input_ids"]])
        ids[0, pieces[number:]] = tokenizer.mask_token_id
        with torch.inference_mode():
            total += float(model(input_ids=ids).logits[0, place].log_softmax(-1)[found["input_ids"][place]])
    return total


def test_ranks_equal_a_loop_over_candidates(masked_folder: Path):
    tokenizer, model = load_tokenizer(masked_folder), load_masked_lm(masked_folder, "cpu")
    expected = []
    for item in ITEMS:
        scores = [naive_score(masked_folder, item, word) for word in item.candidates]
        expected.append(sum(score >= scores[item.candidates.index(item.answer)] for score in scores))
    assert ranks(model, tokenizer, ITEMS, 400) == expected


def test_an_answer_that_cannot_be_written_is_wrong(masked_folders: dict[str, Path]):
    folder = masked_folders["wordpiece"]
    tokenizer, model = load_tokenizer(folder), load_masked_lm(folder, "cpu")
    item = ClozeItem("1", "Bu ", "漢字", " kesindir.", ("漢字", "hüküm", "karar"))
    assert ranks(model, tokenizer, [item], 400) == [3]
    assert open_hits(model, tokenizer, [item], 400) == [(0, 0)]


def test_open_answers_equal_the_greedy_choice(masked_folder: Path):
    """What the model fills in itself, piece by piece, is found to be right; anything else is not."""
    tokenizer, model = load_tokenizer(masked_folder), load_masked_lm(masked_folder, "cpu")
    found = open_hits(model, tokenizer, ITEMS, 400)
    for item, (top1, top5) in zip(ITEMS, found, strict=True):
        encoded = tokenizer(item.sentence(item.answer), return_offsets_mapping=True)
        start, end = item.span(item.answer)
        pieces = [
            place
            for place, (low, high) in enumerate(encoded["offset_mapping"])
            if any(start <= character < end for character in range(low, high))
        ]
        ids = torch.tensor([encoded["input_ids"]])
        truth = ids[0, pieces].clone()
        ids[0, pieces] = tokenizer.mask_token_id
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, pieces]
        assert bool(top1) == bool((logits.argmax(-1) == truth).all()) and top5 >= top1


def test_the_frequency_baseline():
    words = Counter({"ve": 9, "bir": 8, "bu": 7, "hüküm": 6, "karar": 6, "dava": 1})
    assert frequency_hits(ITEMS[1:2], words, ranking=False) == [(0, 1)]
    assert frequency_hits(ITEMS[1:2], words, ranking=True) == [(0, 1)]  # a tie with karar
    words["hüküm"] = 7
    assert frequency_hits(ITEMS[1:2], words, ranking=True) == [(1, 1)]
    assert frequency_hits(ITEMS[:1], words, ranking=True) == [(0, 0)]  # never seen
    assert np.sum(frequency_hits(ITEMS[:1], words, ranking=False)) == 0
