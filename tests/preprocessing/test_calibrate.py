import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mecellem.errors import UserError
from preprocessing.bad_text import BAD_KINDS, make_bad
from preprocessing.calibrate import WRAPPED, area_under_roc, calibrate, make_stages, read_good, wrapped
from preprocessing.close_pairs import measure_pairs
from preprocessing.stages.semantic_dedup import SemanticDedupSettings

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
    goods = {"good: ataturk", "good: kenet", "good: treebank"}
    assert set(content) == goods | {WRAPPED, *(f"bad: {kind}" for kind in BAD_KINDS), "close pairs"}
    assert content["bad: English"]["kept"]["language"] == 0
    assert content["bad: repeated phrase"]["kept"]["all"] == 0
    assert content[WRAPPED]["documents"] == 9
    assert content[WRAPPED]["kept"]["quality"] >= sum(
        content[f"good: {name}"]["kept"]["quality"] for name in ("ataturk", "kenet", "treebank")
    )
    report = (tmp_path / "out" / "calibration.md").read_text("utf-8")
    bits = float(re.search(r"\| kenet \| (\d\.\d\d) \|", report)[1])
    assert bits == pytest.approx(3 * content["good: kenet"]["percentiles"]["suffix_entropy"][50], abs=0.01)
    assert "| bad: keyword list |" in report
    short = content["close pairs"][0]
    assert short["words"] == "1 to 10" and short["pairs"]["0.75"] >= short["pairs"]["0.85"] > short["sharing"]["0.95"]
    assert f"| 1 to 10 | {short['documents']} | {short['pairs']['0.75']:,}, " in report
    assert (tmp_path / "out" / "morphology.png").read_bytes().startswith(b"\x89PNG")


def corpus_yaml(tmp_path, stages):
    path = tmp_path / "corpus.yaml"
    path.write_text(f"out: run\nsources: [{{name: a, kind: jsonl, paths: [a.jsonl]}}]\nstages: {stages}\n", "utf-8")
    return path


def test_the_thresholds_of_a_yaml_file_are_measured(sample_corpus, tmp_path):
    stages = (
        "[{repair: {}}, {quality: {min_words: 100000}}, {morphology: {min_known_words: 1, short_text_allowance: 0, cache: c}}]"
    )
    calibrate((sample_corpus / "test.jsonl.zst",), tmp_path / "out", documents=3, corpus_yaml=corpus_yaml(tmp_path, stages))
    content = orjson.loads((tmp_path / "out" / "calibration.json").read_bytes())
    assert content["good: treebank"]["kept"] == {"quality": 0, "language": 3, "morphology": 0, "all": 0}
    assert content["good: treebank"]["reasons"] == {"quality: short_document": 3, "morphology: unknown_words": 3}
    assert not (tmp_path / "c").exists()


def test_the_flag_for_the_analyser_and_the_missing_repair_are_heeded(tmp_path):
    path = corpus_yaml(tmp_path, "[{morphology: {analyser: zeyrek, reference_entropy: 4}}]")
    stages = make_stages(path)
    assert (stages.morphology.settings.analyser, stages.morphology.settings.reference_entropy) == ("zeyrek", 4)
    assert make_stages(path, "akana").morphology.settings.analyser == "akana"
    line = "Uzun bir satır ve sonrası, " * 9
    assert stages.repair is None
    assert wrapped(line, stages.repair).count("\n") == 2
    assert make_stages().repair is not None


def test_a_yaml_file_that_is_none_is_said(sample_corpus, tmp_path):
    path = corpus_yaml(tmp_path, "[{morphology: {min_suffix_entropy: 75}}]")
    with pytest.raises(UserError, match=r"corpus.yaml, line 3: .*min_suffix_entropy`: 75 is more than all of it"):
        calibrate((sample_corpus / "test.jsonl.zst",), tmp_path / "out", corpus_yaml=path)
    assert not (tmp_path / "out").exists()


def test_too_little_text_is_said(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "kısa"}\n', "utf-8")
    with pytest.raises(UserError, match="no source of --input has 100 words"):
        calibrate((tmp_path / "a.jsonl",), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_documents_are_none_to_calibrate_on(sample_corpus, tmp_path):
    with pytest.raises(UserError, match="--documents and --min-words must be at least 1"):
        calibrate((sample_corpus / "test.jsonl.zst",), tmp_path / "out", documents=0)


def test_close_pairs_are_counted_by_length_with_what_they_share(tmp_path):
    heading = " ".join(f"başlık{number}" for number in range(30))
    body = [" ".join(f"konu{text}söz{number}" for number in range(90)) for text in range(6)]
    texts = [
        "mahkeme kararı verdi",
        "mahkeme kararı verdi.",
        *(f"{heading} {each}" for each in body),
        f"{heading} {body[0]} ek",
    ]
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts), "utf-8")
    short, long = measure_pairs([tmp_path / "a.jsonl"], SemanticDedupSettings(characters=200), 0)
    assert (short.words, short.documents, short.gone, short.gone_by_vectors) == ("1 to 10", 2, 1, 1)
    assert short.pairs["0.95"] == 1
    assert (long.words, long.documents) == ("101 to 300", 7)
    assert long.pairs == {"0.75": 21, "0.85": 21, "0.95": 21} and long.sharing["0.75"] == 1
    assert (long.gone, long.gone_by_vectors) == (1, 6)
    [_, off] = measure_pairs([tmp_path / "a.jsonl"], SemanticDedupSettings(characters=200, min_overlap=0), 0)
    assert (off.gone, off.sharing["0.75"]) == (6, 1)
