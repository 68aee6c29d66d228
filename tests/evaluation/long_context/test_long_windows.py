"""Windows are runs of whole documents' units; needles stand where they should; bad flags and needles are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from long_documents import long_documents

from evaluation.long_context.needle import hide
from evaluation.long_context.needles import FACTS, Needle, choose_needles, read_needles
from evaluation.long_context.position import cut_evenly
from evaluation.long_context.settings import LongContextSettings
from evaluation.long_context.windows import MOST_WORDS, Library, Unit, split_units
from mecellem.errors import UserError
from preprocessing.corpus.document import Document


def count_words(texts: list[str]) -> list[int]:
    return [2 + len(text.split()) for text in texts]


TEXT = st.lists(st.sampled_from(["bir", "İki", "üç.", "dört!", "\n", "\n\n", "Beş", "  ", "altı?", "7."]), max_size=80).map(
    " ".join
)


@given(TEXT)
def test_units_are_the_text(text: str):
    units = split_units(text)
    if text.strip():
        assert "".join(unit for unit, _ in units) == text and units[0][1]
        assert all(1 <= len(unit.split()) <= MOST_WORDS for unit, _ in units)
    else:
        assert units == []


@given(st.integers(20, 300), st.integers(1, 12), st.integers(0, 10))
def test_windows_are_full_whole_and_apart(length: int, most: int, reserve: int):
    documents = [*long_documents(3, 60), Document("short", "law", "", "", "Kısa bir metin.")]
    found = Library(documents, count_words, 0).windows(length, most, reserve)
    texts = {document.id: document.text for document in documents}
    assert len(found) <= most
    for window in found:
        words = len(window.text.split())
        assert window.text in texts[window.key] and window.tokens == words
        assert 0.85 * (length - 2 - reserve) <= words <= length - 2 - reserve
    for key, text in texts.items():
        own = [window.text for window in found if window.key == key]
        for window in own:  # a document may say a thing twice: as many windows of it as places without a common word
            assert own.count(window) <= text.count(window)
    # asking for fewer gives the first of them, whatever order the documents have
    assert Library(documents[::-1], count_words, 0).windows(length, max(1, most - 1), reserve) == found[: max(1, most - 1)]


def test_a_length_that_the_needle_fills_has_no_window():
    assert Library(long_documents(3, 60), count_words, 0).windows(64, 4, reserve=62) == []
    assert Library(long_documents(3, 60), count_words, 0).windows(64, 4, reserve=100) == []


def test_documents_take_turns():
    found = Library(long_documents(4), count_words, 0).windows(100, 4)
    assert len({window.key for window in found}) == 4


UNITS = tuple(Unit(f"{'a ' * 9}s{number}. ", 10, number % 2 == 0) for number in range(20))


@pytest.mark.parametrize(("depth", "before"), [(0, 0), (25, 5), (50, 10), (75, 15), (100, 20)])
def test_the_needle_stands_between_sentences_at_its_depth(depth: float, before: int):
    text = hide("İĞNE.", depth, UNITS)
    first, second = text.split("İĞNE.")
    units = first.count("s")
    assert abs(units - before) <= 1 and (units % 2 == 0 or units == 20)
    assert (first + second).split() == "".join(unit.text for unit in UNITS).split()
    assert not first or first.endswith(". ")


@given(st.lists(st.integers(1, 30), min_size=4, max_size=40), st.integers(2, 4))
def test_pieces_are_the_units_in_order(tokens: list[int], pieces: int):
    units = [Unit(f"u{number} ", count, True) for number, count in enumerate(tokens)]
    found = cut_evenly(units, pieces)
    assert len(found) == pieces and all(found) and [unit for part in found for unit in part] == units
    if len(set(tokens)) == 1:
        sizes = [len(part) for part in found]
        assert max(sizes) - min(sizes) <= 1


# ---- needles


def test_built_in_needles_are_of_different_subjects():
    needles = read_needles([])
    assert len(needles) == len(FACTS) == 24
    assert len({needle.fact for needle in needles}) == len({needle.query for needle in needles}) == 24
    assert all(needle.fact.endswith(".") and needle.query.endswith("?") for needle in needles)
    rounds = choose_needles(needles, 8, 3, 0)
    assert sorted(repr(needle) for part in rounds for needle in part) == sorted(map(repr, needles))
    assert choose_needles(needles[::-1], 8, 3, 0) == rounds != choose_needles(needles, 8, 3, 1)
    with pytest.raises(UserError, match="24"):
        choose_needles(needles, 13, 2, 0)


def test_needles_of_users(tmp_path: Path):
    path = tmp_path / "n.jsonl"
    path.write_text(json.dumps({"text": "Kapı\n mavidir.", "query": "Kapı ne renk?"}) + "\n", encoding="utf-8")
    assert read_needles([path]) == [Needle("Kapı mavidir.", "Kapı ne renk?")]
    for record, message in (
        ({"text": "Kapı."}, "a question"),
        ({"text": " ", "query": "a"}, "a fact"),
        ({"query": "a"}, 'no "text"'),
    ):
        bad = tmp_path / "bad.jsonl"
        bad.write_text(json.dumps(record) + "\n")
        with pytest.raises(UserError, match=f"bad.jsonl, line 1.*{message}"):
            read_needles([bad])
    path.write_text((json.dumps({"text": "a", "query": "b"}) + "\n") * 2)
    with pytest.raises(UserError, match="line 2: the same fact"):
        read_needles([path])


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"lengths": ()}, "--lengths"),
        ({"lengths": (512, 256)}, "--lengths"),
        ({"lengths": (32,)}, "--lengths"),
        ({"depths": ()}, "--depths"),
        ({"depths": (50, 0)}, "--depths"),
        ({"depths": (0, 101)}, "--depths"),
        ({"candidates": 1}, "--candidates"),
        ({"rounds": 0}, "--rounds"),
        ({"documents": 1}, "--documents"),
        ({"pieces": 1}, "--pieces"),
        ({"mask_probability": 1}, "--mask-probability"),
    ],
)
def test_bad_long_context_settings(values: dict, flag: str):
    with pytest.raises(UserError, match=flag):
        LongContextSettings(**values)
