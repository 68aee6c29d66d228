from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.turkish import capitalize, fold, lower, sentence_spans, tokens, upper, words

TURKISH = "abcçdefgğhıijklmnoöprsştuüvyzâîû"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("IĞDIR", "ığdır"), ("İSTANBUL", "istanbul"), ("Işık İçin", "ışık için"), ("I\u0307zmir", "izmir"), ("ÇÖŞÜĞ", "çöşüğ")],
)
def test_lower_case_is_turkish(text, expected):
    assert lower(text) == expected


@given(st.text(TURKISH + " '.0"))
def test_casing_goes_there_and_back(text):
    assert lower(upper(text)) == text
    assert upper(lower(upper(text))) == upper(text)


@given(st.text())
def test_lower_and_fold_leave_nothing_to_do(text):
    assert lower(lower(text)) == lower(text)
    assert fold(fold(text)) == fold(text)


def test_capitals():
    assert [capitalize(word) for word in ("istanbul", "ısparta", "ş", "")] == ["İstanbul", "Isparta", "Ş", ""]


def test_folding_joins_spellings_and_keeps_letters_that_tell_words_apart():
    assert fold("KÂĞIT") == fold("kağıt") == "kağıt"
    assert fold("Yargıtay’ın") == fold("YARGITAY'IN") == "yargıtay'ın"
    assert len({fold(word) for word in ("on", "ön", "kuş", "kus", "sık", "sik")}) == 6


def test_words_keep_the_suffix_behind_an_apostrophe():
    assert words("Yargıtay'ın 3. kararı, TBMM’nin!") == ["Yargıtay'ın", "3", "kararı", "TBMM’nin"]


@given(st.text())
def test_every_sign_that_is_no_space_is_in_one_token(text):
    assert "".join(tokens(text)) == "".join(text.split())


def test_sentences_end_neither_at_ordinals_nor_at_short_forms():
    text = "Yargıtay 3. Hukuk Dairesi bozdu. Av. Ali Can ve Dr. Öz geldi mi? Evet!\nSon satır"
    assert [text[start:end].strip() for start, end in sentence_spans(text)] == [
        "Yargıtay 3. Hukuk Dairesi bozdu.",
        "Av. Ali Can ve Dr. Öz geldi mi?",
        "Evet!",
        "Son satır",
    ]


@given(st.text("Aa .!?\n'3\""))
def test_sentences_cover_all_that_is_no_space_in_order(text):
    spans = sentence_spans(text)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
