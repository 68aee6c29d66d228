import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.corpus.clean import (
    as_sentence,
    clean_line,
    clean_text,
    looks_english,
    without_tags,
    words_of,
)


@given(st.text())
def test_clean_text_is_composed_has_no_control_characters_and_stays_as_it_is(text):
    cleaned = clean_text(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(letter) == "Cc" and letter != "\n" for letter in cleaned)
    assert clean_text(cleaned) == cleaned
    assert all(line == line.strip() and line for line in cleaned.split("\n")) or cleaned == ""


def test_decomposed_letters_soft_hyphens_and_spaces():
    assert clean_line("tu\u0308rk\u00adçe  \u200b I\u0307stanbul\u00a0’da\x07") == "türkçe İstanbul ’da"
    assert clean_text("bir\r\n\r\n iki\u2028üç\t dört\n") == "bir\niki\nüç dört"


def test_titles_lose_their_tags_and_entities():
    assert without_tags("Açılış Konuşması<br>1 Kasım 1923 &amp; <i>ek</i>") == "Açılış Konuşması 1 Kasım 1923 & ek"
    assert without_tags("a < b") == "a < b"


def test_words_for_comparing_have_neither_case_nor_punctuation():
    assert words_of("“İlk” IŞIK, geldi!") == ["ilk", "ışık", "geldi"]


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("You can assign a macro to certain events.", True),
        ("The events that are shown in the dialog", True),
        ("In the file", False),  # too short to tell
        ("Makroyu on ikinci olaya atayın", False),
        ("Bu pencerede OK of the day düğmesi için", False),
        ("Ankara Konya Sivas Tokat", False),
    ],
)
def test_english_is_told_from_turkish(text, english):
    assert looks_english(text) is english


def test_a_definition_becomes_a_sentence():
    assert [as_sentence(text) for text in ("kumaş", "Geldi mi?", "ve ...", "")] == ["kumaş.", "Geldi mi?", "ve ...", ""]
