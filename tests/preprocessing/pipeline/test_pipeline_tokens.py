"""What a run writes in OUT/tokens, and what status and the page tell of it."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from browser_pages import check_page
from pipeline_runs import documents, figure, jsonl_source, lines_of, sentences, write_corpus, write_jsonl

from mecellem.errors import UserError
from mecellem.manifest import read_manifest, verify_files
from preprocessing.pipeline.config import read_corpus
from preprocessing.pipeline.layout import RunFolders
from preprocessing.pipeline.report import report
from preprocessing.pipeline.run import run
from preprocessing.pipeline.status import status
from preprocessing.pipeline.tokenize import tokens_by_source, written_tokens

ALL_GONE = {"quality": {"min_words": 10_000}}
KEPT = {"quality": {"min_words": 3, "min_stop_words": 0, "top_ngrams": [], "duplicate_ngrams": []}}


@pytest.fixture(scope="module")
def small_tokenizer(tmp_path_factory):
    from preprocessing.tokenizer import train_tokenizer, write_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(train_tokenizer(map(sentences, range(60)), 300), folder, 512)
    return folder


@pytest.fixture
def corpus(tmp_path, small_tokenizer):
    """`first` has 30 documents of 40 words, `second` 12 of 5 words in several shards, three of them twice."""
    return make_corpus(tmp_path, [{"exact_dedup": {}}], {"tokenizer": str(small_tokenizer)})


def make_corpus(folder, stages, tokenize):
    first = write_jsonl(folder / "first.jsonl", map(sentences, range(30)))
    second = write_jsonl(folder / "second.jsonl", [sentences(n, 5) for n in [*range(100, 112), 100, 100, 101]])
    sources = [jsonl_source(first, name="first"), jsonl_source(second, name="second", licence="MIT")]
    return write_corpus(folder / "corpus.yaml", sources, stages, shard_size="1KB", tokenize=tokenize)


def tokens_of(corpus):
    return corpus.parent / "out" / "tokens"


def page_of(corpus):
    return (corpus.parent / "out" / "report.html").read_text()


def change(corpus, old, new):
    text = corpus.read_text()
    assert old in text
    corpus.write_text(text.replace(old, new))


def shown(corpus, capsys):
    capsys.readouterr()
    status(corpus)
    return capsys.readouterr().out


def counted(corpus, small_tokenizer, source):
    """The tokens of a source by the tokenizer itself, with one for the end of each document."""
    from preprocessing.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(small_tokenizer).tokenizer
    kept = documents(corpus.parent / "out" / "stages" / "01_exact_dedup")
    texts = [document["text"] for document in kept if document["source"] == source]
    return sum(len(tokenizer.encode(text, add_special_tokens=False).ids) + 1 for text in texts)


def test_tokens_of_each_source_are_exact_and_fill_the_page_and_its_funnel(corpus, small_tokenizer):
    run(corpus, workers=1)
    settings = read_corpus(corpus)
    tokens = tokens_by_source(RunFolders(settings.out).tokens, written_tokens(settings))
    assert tokens == {name: counted(corpus, small_tokenizer, name) for name in ("first", "second")}
    assert sum(tokens.values()) == read_manifest(tokens_of(corpus) / "corpus").tokens
    page = page_of(corpus)
    for count in (*tokens.values(), sum(tokens.values())):
        assert f"<td>{count:,}</td></tr>" in page
    bars = {
        (row["series"], row["y"]): int(float(row["x"]))
        for row in figure(corpus.parent / "out" / "report.html", "funnel")
        if row["panel"] == "tokens left"
    }
    assert {name: bars[name, "exact_dedup"] for name in tokens} == tokens
    # before the last stage: the words that were read, times what a word of the same source has in tokens
    words = {name: [len(sentences(n, count).split()) for n in numbers] for name, numbers, count in _read()}
    kept = {name: [len(sentences(n, count).split()) for n in set(numbers)] for name, numbers, count in _read()}
    for name, count in tokens.items():
        assert bars[name, "read"] == round(count * sum(words[name]) / sum(kept[name])) >= count
    check_page(corpus.parent / "out" / "report.html")


def _read():
    return ("first", range(30), 40), ("second", [*range(100, 112), 100, 100, 101], 5)


def test_a_source_of_which_nothing_is_left_has_no_tokens_and_no_share(tmp_path, small_tokenizer, capsys):
    stage = {"quality": KEPT["quality"] | {"min_words": 30}}
    corpus = make_corpus(tmp_path, [stage], {"tokenizer": str(small_tokenizer), "per_source": True})
    run(corpus, workers=1)
    assert "nothing of source second is left: it has no tokens and no place in mixture.yaml" in capsys.readouterr().out
    tokens = tokens_of(corpus)
    assert read_manifest(tokens / "first").documents == 30
    assert yaml.safe_load((tokens / "mixture.yaml").read_text()) == {
        "sources": [{"path": str(tokens / "first"), "weight": 1.0}]
    }
    assert not list(tokens.glob("second*"))
    assert "second" in page_of(corpus)
    again = shown(corpus, capsys)
    assert "tokens  first: 30 documents" in again and "of an earlier run" not in again


def test_where_nothing_at_all_is_left_the_page_is_there_and_older_tokens_are_not(corpus, capsys):
    run(corpus, workers=1)
    assert (tokens_of(corpus) / "corpus.bin").exists()
    content = yaml.safe_load(corpus.read_text())
    corpus.write_text(yaml.safe_dump(content | {"stages": [{"exact_dedup": {}}, ALL_GONE]}))
    with pytest.raises(
        UserError, match=r"no document of .*corpus\.yaml is left after the stages.*prepare status .* --examples"
    ):
        run(corpus, workers=1)
    assert [path.name for path in tokens_of(corpus).iterdir()] == []
    assert "in 0 of 45 documents" in page_of(corpus)
    assert "tokens" not in shown(corpus, capsys).replace("tokenize", "")


def test_figures_of_older_settings_are_told_of(corpus, small_tokenizer, capsys):
    run(corpus, workers=1)
    now = shown(corpus, capsys)
    assert re.search(r"tokens  corpus: 42 documents, [\d,]+ tokens\n", now) and "older" not in now
    change(corpus, "exact_dedup: {}", "exact_dedup: {normalize: false}")
    then = shown(corpus, capsys)
    assert "older   exact_dedup: settings changed since" in then
    assert "tokens (of an earlier run of other settings or sources; the next run makes them again)" in then
    report(corpus)
    assert "Made with other settings than the YAML file has now: exact_dedup" in page_of(corpus)
    assert "<th>tokens</th>" not in page_of(corpus)
    run(corpus, workers=1)
    assert "older" not in shown(corpus, capsys) and "<th>tokens</th>" in page_of(corpus)
    change(corpus, f"tokenizer: {small_tokenizer}", f"eod: '[CLS]'\n  tokenizer: {small_tokenizer}")
    assert "tokens (of an earlier run" in shown(corpus, capsys)


def test_a_change_of_an_early_stage_makes_the_later_ones_older(tmp_path, small_tokenizer, capsys):
    corpus = make_corpus(tmp_path, [{"exact_dedup": {}}, KEPT], {"tokenizer": str(small_tokenizer)})
    run(corpus, workers=1)
    change(corpus, "exact_dedup: {}", "exact_dedup: {normalize: false}")
    then = shown(corpus, capsys)
    assert "older   exact_dedup, quality: settings changed since" in then
    assert "tokens (of an earlier run" in then


def test_corpora_that_are_no_longer_planned_are_removed(corpus):
    change(corpus, "tokenize:\n", "tokenize:\n  per_source: true\n")
    run(corpus, workers=1)
    tokens = tokens_of(corpus)
    assert {path.name.partition(".")[0] for path in tokens.iterdir()} == {"first", "second", "mixture", "made_of"}
    change(corpus, "name: second", "name: third")
    run(corpus, workers=1)
    assert {path.name.partition(".")[0] for path in tokens.iterdir()} == {"first", "third", "mixture", "made_of"}
    assert [source["path"] for source in yaml.safe_load((tokens / "mixture.yaml").read_text())["sources"]] == [
        str(tokens / "first"),
        str(tokens / "third"),
    ]
    change(corpus, "per_source: true", "per_source: false")
    run(corpus, workers=1)
    endings = ("bin", "idx", "manifest.json", "provenance.jsonl.zst")
    assert {path.name for path in tokens.iterdir()} == {"made_of.json", *(f"corpus.{ending}" for ending in endings)}


def test_tokens_that_nobody_asks_for_any_more_are_told_of(corpus, capsys):
    run(corpus, workers=1)
    count = read_manifest(tokens_of(corpus) / "corpus").tokens
    assert "older" not in shown(corpus, capsys) and "older settings" not in page_of(corpus)
    content = yaml.safe_load(corpus.read_text())
    tokenize = content.pop("tokenize")
    corpus.write_text(yaml.safe_dump(content, sort_keys=False))
    sentence = (
        f"corpus: 42 documents, {count:,} tokens (of older settings: the YAML file asks for no such tokens now; "
        "they stay until you remove them)"
    )
    assert f"tokens  {sentence}" in shown(corpus, capsys)
    run(corpus, workers=1)
    assert f"note    tokens of {sentence}" in " ".join(capsys.readouterr().out.split("\n"))
    assert f"Tokens of {sentence}." in page_of(corpus) and "<th>tokens</th>" not in page_of(corpus)
    corpus.write_text(yaml.safe_dump(content | {"tokenize": tokenize | {"per_source": True}}, sort_keys=False))
    then = shown(corpus, capsys)
    assert f"corpus: 42 documents, {count:,} tokens (of older settings" in then and "the next run removes them" in then
    run(corpus, workers=1)
    assert "older settings" not in shown(corpus, capsys)


def test_the_manifest_names_the_provenance_and_a_change_of_it_is_written_without_tokenizing(corpus):
    run(corpus, workers=1)
    prefix = tokens_of(corpus) / "corpus"
    manifest = read_manifest(prefix)
    assert manifest.provenance.file == "corpus.provenance.jsonl.zst" and manifest.provenance.documents == manifest.documents
    verify_files(prefix, manifest)
    stamp = (tokens_of(corpus) / "corpus.bin").stat().st_mtime_ns
    change(corpus, "exact_dedup: {}", "exact_dedup: {normalize: false}")  # which drops the same documents
    run(corpus, workers=1)
    head, *_ = lines_of(tokens_of(corpus) / "corpus.provenance.jsonl.zst")
    assert head["stages"][1]["settings"] == {"normalize": False}
    verify_files(prefix, read_manifest(prefix))
    assert (tokens_of(corpus) / "corpus.bin").stat().st_mtime_ns == stamp


def test_a_corpus_that_somebody_put_there_stays(corpus):
    from mecellem.cli import main

    run(corpus, workers=1)
    tokens = tokens_of(corpus)
    assert main(["prepare", "merge", "--input", str(tokens / "corpus.idx"), "--out", str(tokens / "all")]) == 0
    run(corpus, workers=1)
    assert (tokens / "all.bin").exists() and (tokens / "all.manifest.json").exists()


def test_every_document_leads_back_to_its_raw_file_when_the_stages_are_gone(corpus):
    run(corpus, workers=1)
    kept = documents(corpus.parent / "out" / "stages" / "01_exact_dedup")
    shutil.rmtree(corpus.parent / "out" / "stages")
    head, *ranges = lines_of(tokens_of(corpus) / "corpus.provenance.jsonl.zst")
    assert [stage["name"] for stage in head["stages"]] == ["read", "exact_dedup"]
    assert head["stages"][1]["settings"] == {"normalize": True}
    assert ranges[0]["first"] == 0 and ranges[-1]["last"] == len(kept) == 42
    assert len(ranges) > 3
    for before, after in pairwise(ranges):
        assert before["last"] == after["first"]
    for item in ranges:
        for document in kept[item["first"] : item["last"]]:
            assert (document["source"], document["licence"]) == (item["source"], item["licence"])
            file, _, line = document["origin"].rpartition(":")
            content = Path(file).read_bytes().splitlines(keepends=True)
            start = sum(map(len, content[: int(line) - 1]))
            assert any(part["path"] == file and part["start"] <= start < part["end"] for part in item["parts"])


def test_without_the_stages_folder_status_says_what_is_missing(corpus, capsys):
    run(corpus, workers=1)
    shutil.rmtree(corpus.parent / "out" / "stages")
    for command in (status, report):
        with pytest.raises(UserError, match=r"nothing was run in .*, or OUT/stages was removed, which has what this shows"):
            command(corpus)


def test_the_page_is_there_when_tokenizing_fails(corpus, monkeypatch):
    from preprocessing.pipeline import tokenize

    def full(*_, **__):
        raise UserError("the disk is full")

    monkeypatch.setattr(tokenize, "tokenize_corpus", full)
    with pytest.raises(UserError, match="the disk is full"):
        run(corpus, workers=1)
    page = page_of(corpus)
    assert "in 42 of 45 documents" in page and "<th>tokens</th>" not in page
    assert {row["panel"] for row in figure(corpus.parent / "out" / "report.html", "funnel")} == {"documents left", "words left"}
    assert "digest" not in json.loads((tokens_of(corpus) / "made_of.json").read_text())  # nothing there is current
    monkeypatch.undo()
    run(corpus, workers=1)
    assert "<th>tokens</th>" in page_of(corpus)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tokenizer": "nowhere"}, r"`tokenize\.tokenizer` in .*corpus\.yaml, line \d+: nowhere is not a folder"),
        ({"eod": "<nothing>"}, r"`tokenize\.eod` in .*corpus\.yaml, line \d+: '<nothing>' is not an entry"),
    ],
)
def test_a_wrong_tokenizer_is_told_of_by_file_and_line(corpus, small_tokenizer, settings, sentence):
    content = yaml.safe_load(corpus.read_text())
    content["tokenize"] |= settings
    corpus.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError, match=sentence) as error:
        run(corpus, workers=1)
    line = int(re.search(r"line (\d+)", str(error.value))[1])
    assert str(next(iter(settings.values()))) in corpus.read_text().splitlines()[line - 1]
    assert "--" not in str(error.value)
    assert not (corpus.parent / "out" / "stages").exists()


def test_the_marker_of_current_tokens_is_written_last(corpus):
    run(corpus, workers=1)
    done = json.loads((corpus.parent / "out" / "stages" / "01_exact_dedup" / "done.json").read_text())
    marker = json.loads((tokens_of(corpus) / "made_of.json").read_text())
    assert marker["digest"] == done["digest"]
    times = {path.name: path.stat().st_mtime_ns for path in tokens_of(corpus).iterdir()}
    assert max(times, key=lambda name: times[name]) == "made_of.json"
