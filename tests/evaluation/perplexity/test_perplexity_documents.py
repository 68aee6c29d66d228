"""Documents are read in one fixed order, and what is left out is counted."""

import gzip
import json
from pathlib import Path

import pytest

from evaluation.perplexity.documents import read_texts
from evaluation.perplexity.settings import PerplexitySettings
from mecellem.errors import UserError

BRANCH = PerplexitySettings(domain_field="branch")


def write(path: Path, *records: dict) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def test_domains_come_from_the_field_else_from_the_file(texts: Path, tmp_path: Path):
    found = read_texts([texts], BRANCH)
    assert {name: len(places) for name, places in found.domains().items()} == {"hukuk": 1, "sentence": 20, "speech": 12}
    assert (found.empty, found.cut, found.left_out) == (1, 0, 0)
    found = read_texts([texts], PerplexitySettings())
    assert list(found.domains()) == ["hukuk"]
    other = tmp_path / "ceza.jsonl.gz"
    other.write_bytes(gzip.compress(b'{"text": "Bir"}\n'))
    assert list(read_texts([texts, other], PerplexitySettings()).domains()) == ["ceza", "hukuk"]


def test_a_corpus_folder_is_its_test_split(sample_corpus: Path):
    found = read_texts([sample_corpus], PerplexitySettings(max_documents=3))
    assert {"ataturk", "kenet"} <= found.domains().keys()
    assert all(len(places) == 3 for places in found.domains().values()) and found.left_out > 0


def test_cutting_is_in_characters_and_counted(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", {"text": "ığüşöç" * 10}, {"text": "kısa"})
    found = read_texts([path], PerplexitySettings(max_characters=7))
    assert [text.text for text in found.texts] == ["ığüşöçı", "kısa"] and found.cut == 1
    assert found.texts[0].size == 14


def test_a_choice_of_documents_is_the_same_wherever_the_others_stand(tmp_path: Path):
    records = [{"text": f"metin {number}"} for number in range(50)]
    found = read_texts([write(tmp_path / "a.jsonl", *records)], PerplexitySettings(max_documents=5))
    again = read_texts([write(tmp_path / "a.jsonl", *records)], PerplexitySettings(max_documents=5))
    other = read_texts([tmp_path / "a.jsonl"], PerplexitySettings(max_documents=5, seed=1))
    assert found == again and found.left_out == 45
    assert found.texts != other.texts
    assert [text.key for text in found.texts] == sorted((text.key for text in found.texts), key=lambda k: int(k.split(":")[1]))


def test_the_digest_is_that_of_texts_and_domains(tmp_path: Path):
    settings = PerplexitySettings()
    first = read_texts([write(tmp_path / "a.jsonl", {"text": "bir", "branch": "x"}, {"text": "iki", "branch": "x"})], settings)
    moved = read_texts([write(tmp_path / "a.jsonl", {"text": "bir"}, {"text": "iki"})], settings)
    other = read_texts([write(tmp_path / "a.jsonl", {"text": "biri"}, {"text": "ki"})], settings)
    named = read_texts([write(tmp_path / "a.jsonl", {"text": "bir", "source": "x"}, {"text": "iki"})], settings)
    assert first.sha256 == moved.sha256
    assert len({first.sha256, other.sha256, named.sha256}) == 3


def test_a_domain_field_that_no_document_has_is_refused_and_one_that_some_lack_is_counted(tmp_path: Path):
    path = write(tmp_path / "law.jsonl", {"text": "bir", "licence": "x"}, {"text": "iki", "court": None}, {"text": " "})
    with pytest.raises(UserError) as caught:
        read_texts([path], PerplexitySettings(domain_field="court"))
    assert str(caught.value) == (
        f"{path} (--texts): no document has the field 'court' of --domain-field, their fields are text, licence, court: "
        "name one of those, or leave the flag out"
    )
    assert read_texts([path], PerplexitySettings()).unnamed == 2  # the default may be lacking everywhere
    found = read_texts([path], PerplexitySettings(domain_field="licence"))
    assert (found.unnamed, found.domains()) == (1, {"law": [1], "x": [0]})


def test_bad_texts_are_refused(tmp_path: Path, texts: Path):
    for paths, message in (
        ([], "--texts names nothing"),
        ([tmp_path / "none.jsonl"], "none.jsonl, given by --texts, is not a file"),
        ([tmp_path], r"test\.jsonl\.zst .*is missing"),
        ([texts, texts], "names the same file twice"),
        ([write(tmp_path / "empty.jsonl", {"text": " "})], "has no document with text"),
        ([write(tmp_path / "number.jsonl", {"text": "a", "branch": 3})], 'line 1: "branch" must be a string, not a number'),
        ([write(tmp_path / "torn.jsonl", {"text": "a"}, {"body": "b"})], 'line 2: the record has no "text"'),
    ):
        with pytest.raises(UserError, match=message):
            read_texts(paths, BRANCH)


def test_settings_that_contradict_each_other_are_refused():
    for fields, flag in (
        ({"window": 8, "stride": 9}, "--stride 9"),
        ({"stride": 0}, "--stride 0"),
        ({"max_documents": -1}, "--max-documents -1"),
        ({"max_characters": -1}, "--max-characters"),
        ({"batch_tokens": 0}, "--batch-tokens"),
        ({"domain_field": ""}, "--domain-field"),
    ):
        with pytest.raises(UserError, match=flag):
            PerplexitySettings(**fields)
