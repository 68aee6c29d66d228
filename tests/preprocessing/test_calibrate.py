import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mecellem.errors import UserError
from preprocessing.bad_text import BAD_KINDS, make_bad
from preprocessing.calibrate import area_under_roc, calibrate, read_good

VALUES = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(VALUES, VALUES)
def test_the_area_is_the_share_of_pairs_in_the_right_order(good, bad):
    wins = sum((one > other) + 0.5 * (one == other) for one in good for other in bad)
    assert area_under_roc(good, bad) == pytest.approx(wins / (len(good) * len(bad)))


@pytest.fixture(scope="module")
def good(sample_corpus):
    return read_good([sample_corpus / "test.jsonl.zst"], 4, 100, 0)


def test_good_texts_are_long_enough_and_chosen_by_seed(sample_corpus, good):
    assert set(good) == {"ataturk", "kenet", "treebank"}
    assert all(len(texts) == 4 and all(len(text.split()) >= 100 for text in texts) for texts in good.values())
    assert read_good([sample_corpus / "test.jsonl.zst"], 4, 100, 0) == good
    assert read_good([sample_corpus / "test.jsonl.zst"], 4, 100, 1) != good


@pytest.mark.parametrize("kind", BAD_KINDS)
def test_bad_text_is_about_as_long_as_good_text_and_always_the_same(good, kind):
    texts = [text for source in good.values() for text in source]
    bad = make_bad(kind, texts, ["kalem", "defter", "masa"])
    assert bad == make_bad(kind, texts, ["kalem", "defter", "masa"])
    for text, other in zip(texts, bad, strict=True):
        assert other != text
        assert 0.8 <= len(other.split()) / len(text.split()) <= 2.5


def test_the_command_writes_tables_and_a_figure(sample_corpus, tmp_path):
    calibrate((sample_corpus / "test.jsonl.zst",), tmp_path / "out", documents=3)
    content = orjson.loads((tmp_path / "out" / "calibration.json").read_bytes())
    assert set(content) == {"good: ataturk", "good: kenet", "good: treebank", *(f"bad: {kind}" for kind in BAD_KINDS)}
    assert content["bad: English"]["kept"]["language"] == 0
    assert content["bad: repeated phrase"]["kept"]["all"] == 0
    report = (tmp_path / "out" / "calibration.md").read_text("utf-8")
    assert "| bad: keyword list |" in report
    assert (tmp_path / "out" / "morphology.png").read_bytes().startswith(b"\x89PNG")


def test_too_little_text_is_said(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "kısa"}\n', "utf-8")
    with pytest.raises(UserError, match="no source of --input has 100 words"):
        calibrate((tmp_path / "a.jsonl",), tmp_path / "out")
    assert not (tmp_path / "out").exists()
