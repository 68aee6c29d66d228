import re

import pytest
import yaml
from browser_pages import check_page
from command_line import mecellem
from pipeline_runs import jsonl_source, sentences, write_corpus, write_jsonl

from mecellem.errors import UserError
from mecellem.manifest import read_manifest
from preprocessing.pipeline.layout import write_whole
from preprocessing.pipeline.ledger import Recorder, TaskLedger, sum_ledgers
from preprocessing.pipeline.report import report
from preprocessing.pipeline.run import run
from preprocessing.pipeline.status import status


@pytest.fixture
def corpus(tmp_path):
    first = write_jsonl(tmp_path / "first.jsonl", [*map(sentences, range(30)), sentences(3)])
    second = write_jsonl(tmp_path / "second.jsonl", [*map(sentences, range(25, 50))])
    with open(second, "a") as handle:
        handle.write("{<b>broken</b>\n")
    sources = [jsonl_source(first, name="first", weight=3.0), jsonl_source(second, name="second", limits={"share": 0.5})]
    return write_corpus(tmp_path / "corpus.yaml", sources, [{"exact_dedup": {}}], shard_size="3KB")


@pytest.fixture
def small_tokenizer(tmp_path):
    from preprocessing.tokenizer import train_tokenizer, write_tokenizer

    (tmp_path / "tokenizer").mkdir()
    write_tokenizer(train_tokenizer(map(sentences, range(60)), 300), tmp_path / "tokenizer", 512)
    return tmp_path / "tokenizer"


def test_status_and_the_page_tell_what_happened_and_why(corpus, capsys):
    run(corpus, workers=1)
    capsys.readouterr()
    status(corpus, examples=True)
    shown = capsys.readouterr().out
    assert re.search(r"exact_dedup\s+(\d+)/\1\s+56\s+50\s+[\d,]+ .*exact_duplicate 6", shown)
    assert re.search(r"read\s+(\d+)/\1\s+57\s+56 .*not_json 1", shown)
    assert "second.jsonl, line 26:" in shown
    assert len(re.findall(r"(?:first|second)\.jsonl:\d+: Belge \d+: ", shown)) == 5
    page = (corpus.parent / "out" / "report.html").read_text()
    check_page(corpus.parent / "out" / "report.html")
    assert "url(http" not in page and "@import" not in page
    assert page.count("<svg") >= 3
    for piece in (
        "Belge 2",
        "exact_duplicate",
        "not_json",
        "CC0-1.0",
        "of the words that were read stayed, in 50 of 56 documents",
    ):
        assert piece in page
    assert "<b>broken" not in page
    report(corpus, out=corpus.parent / "again.html")
    assert (corpus.parent / "again.html").read_text() == page


def test_status_before_and_in_the_middle_of_a_run(corpus, capsys):
    with pytest.raises(UserError, match=r"nothing was run in .*out yet: start with `mecellem prepare run"):
        status(corpus)
    run(corpus, workers=1)
    (corpus.parent / "out" / "stages" / "01_exact_dedup" / "done.json").unlink()
    (corpus.parent / "out" / "stages" / "01_exact_dedup" / "ledger" / "00000.json").unlink()
    capsys.readouterr()
    status(corpus)
    assert re.search(r"exact_dedup\s+(\d)/(?!\1)\d", capsys.readouterr().out)
    report(corpus)
    assert "Not finished: exact_dedup still to be done" in (corpus.parent / "out" / "report.html").read_text()


def test_ledgers_add_up_whatever_the_order_of_examples(tmp_path):
    from datatrove.data import Document

    paths, whole = [], Recorder()
    for task in range(3):
        part = Recorder()
        for number in range(task * 10, task * 10 + 10):
            for recorder in (part, whole):
                metadata = {"source": f"s{number % 2}", "origin": f"x:{number}", "measures": {"ratio": number / 7}}
                document = Document(sentences(number), str(number), metadata=metadata)
                recorder.enter(document)
                recorder.drop(document, "short") if number % 3 else recorder.keep(document)
        paths.append(tmp_path / f"{task}.json")
        write_whole(paths[-1], part.finish({"lines": task}))
    assert sum_ledgers(paths) == whole.finish({"lines": 3})
    assert len(whole.ledger.examples["short"]) == 5
    assert TaskLedger().total().entered.documents == 0


def test_tokens_of_each_source_and_a_mixture_for_a_curriculum(corpus, small_tokenizer):
    corpus.write_text(corpus.read_text() + f"tokenize: {{tokenizer: {small_tokenizer}, per_source: true}}\n")
    run(corpus, workers=1)
    tokens = corpus.parent / "out" / "tokens"
    first, second = read_manifest(tokens / "first"), read_manifest(tokens / "second")
    assert (first.documents, second.documents) == (30, 20)
    assert [(part.source, part.licence) for part in second.sources] == [("second", "CC0-1.0")]
    mixture = yaml.safe_load((tokens / "mixture.yaml").read_text())["sources"]
    assert mixture == [{"path": str(tokens / "first"), "weight": 0.75}, {"path": str(tokens / "second"), "weight": 0.25}]
    assert f"{first.tokens:,}" in (corpus.parent / "out" / "report.html").read_text()


def test_one_corpus_of_all_sources_by_the_command_itself(corpus, small_tokenizer):
    corpus.write_text(corpus.read_text() + f"tokenize: {{tokenizer: {small_tokenizer}}}\n")
    done = mecellem("prepare", "run", corpus, "--workers", "1", cwd=corpus.parent, timeout=300)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(corpus.parent / "out" / "tokens" / "corpus")
    assert [(part.source, part.last - part.first) for part in manifest.sources] == [("first", 30), ("second", 20)]
    assert f"{manifest.tokens:,} tokens" in done.stdout


def test_a_missing_tokenizer_is_told_of_before_any_work(corpus):
    corpus.write_text(corpus.read_text() + "tokenize: {tokenizer: nowhere}\n")
    with pytest.raises(UserError, match="nowhere"):
        run(corpus, workers=1)
    assert not (corpus.parent / "out" / "stages").exists()
