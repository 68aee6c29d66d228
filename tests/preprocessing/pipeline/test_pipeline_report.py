import base64
import csv
import io
import re
from itertools import pairwise

import pytest
import yaml
from browser_pages import check_page
from command_line import mecellem
from pipeline_runs import documents, figure, jsonl_source, sentences, write_corpus, write_jsonl
from rich.console import Console

from mecellem.errors import UserError
from mecellem.manifest import read_manifest
from preprocessing.pipeline.layout import write_whole
from preprocessing.pipeline.ledger import Recorder, TaskLedger, sum_ledgers
from preprocessing.pipeline.report import report
from preprocessing.pipeline.run import run
from preprocessing.pipeline.status import status
from preprocessing.sources.found import SKIPPED

TURKISH = "Mahkeme, davacının iddialarını ve dosyadaki belgeleri inceledikten sonra davanın kısmen kabulüne karar vermiştir."
ENGLISH = "The court examined the claims of the plaintiff and the documents in the file and then partly allowed the action."
NAMES = ("01_exact_dedup", "02_minhash")


@pytest.fixture
def corpus(tmp_path):
    first = write_jsonl(tmp_path / "first.jsonl", [*map(sentences, range(30)), sentences(3)])
    second = write_jsonl(tmp_path / "second.jsonl", [*map(sentences, range(25, 50))])
    with open(second, "a") as handle:
        handle.write("{<b>broken</b>\n")
    sources = [jsonl_source(first, name="first"), jsonl_source(second, name="second", limits={"share": 0.5})]
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
    weighted = corpus.read_text().replace("- name: first\n", "- name: first\n  weight: 3.0\n")
    corpus.write_text(f"{weighted}tokenize: {{tokenizer: {small_tokenizer}, per_source: true}}\n")
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


def test_the_page_breaks_losses_down_by_source_and_tells_what_was_changed_or_passed_over(tmp_path, capsys):
    contacts = [f"{sentences(n)} Yazın: ali{n}@example.com" for n in range(6)]
    files = [write_jsonl(tmp_path / "a.jsonl", [*contacts, contacts[0]]), tmp_path / "crawl.warc"]
    write_warc(files[1], [sentences(n) for n in (200, 201)])
    sources = [jsonl_source(files[0], name="mails"), {"name": "web", "kind": "warc", "paths": [str(files[1])]}]
    corpus = write_corpus(tmp_path / "corpus.yaml", sources, [{"exact_dedup": {}}, {"pii": {}}])
    run(corpus, workers=1)
    capsys.readouterr()
    status(corpus)
    shown = capsys.readouterr().out
    assert re.search(r"read .*; skipped not_a_page 2|read .* skipped not_a_page 2", shown)
    assert re.search(r"pii .* changed email\w* 6", shown)
    page = corpus.parent / "out" / "report.html"
    html = page.read_text()
    assert row("mails", "exact_dedup", "exact_duplicate", "1") in html
    assert re.search(r'<tr><td>pii</td><td class="text">changed</td><td class="text">email\w*</td><td>6</td></tr>', html)
    assert row("read", "skipped", SKIPPED["not_a_page"], "2") in html
    check_page(page)


def row(*cells):
    first, *middle, last = cells
    inner = "".join(f'<td class="text">{cell}</td>' for cell in middle)
    return f"<tr><td>{first}</td>{inner}<td>{last}</td></tr>"


def write_warc(path, texts):
    """Pages with these texts, and two records that are none."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    pages = [("text/html; charset=utf-8", f"<html><body><p>{text}</p></body></html>") for text in texts]
    with open(path, "wb") as handle:
        writer = WARCWriter(handle, gzip=False)
        for kind, content in [*pages, ("image/png", "x"), ("image/png", "y")]:
            headers = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.0")
            payload = io.BytesIO(content.encode())
            record = writer.create_warc_record("https://example.org/", "response", payload=payload, http_headers=headers)
            writer.write_record(record)


def test_languages_are_those_that_were_met_beside_those_that_stayed(tmp_path):
    turkish = [f"{TURKISH} {n} numaralı dosyada da böyle karar verilmiştir." for n in range(5)]
    english = [f"{ENGLISH} It was decided in case number {n} as well." for n in range(3)]
    path = write_jsonl(tmp_path / "laws.jsonl", [*turkish, *english])
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [{"language": {}}])
    run(corpus, workers=1)
    page = corpus.parent / "out" / "report.html"
    bars = {(bar["series"], bar["y"]): float(bar["x"]) for bar in figure(page, "languages")}
    assert bars["read", "tr"] == bars["kept", "tr"] == 5
    met = {name: count for (series, name), count in bars.items() if series == "read" and name != "tr"}
    assert sum(met.values()) == 3
    assert all(bars["kept", name] == 0 for name in met)


def test_groups_of_duplicates_are_counted_by_their_size(tmp_path):
    whole = [sentences(1, 60)] * 4 + [sentences(2, 60)] * 2 + [sentences(n, 60) for n in range(3, 9)]
    near = [f"{sentences(20, 60)} {word}" for word in ("bir", "iki", "üç")]
    path = write_jsonl(tmp_path / "laws.jsonl", [*whole, *near])
    stages = [{"exact_dedup": {}}, {"minhash": {}}]
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], stages, shard_size=300)  # a shard a document
    run(corpus, workers=2)
    ledgers = {name: sum_ledgers([tmp_path / "out" / "stages" / name / "ledger.json"]) for name in NAMES}
    assert ledgers["01_exact_dedup"].alike == {4: 1, 2: 1}
    assert ledgers["02_minhash"].alike == {3: 1}
    assert ledgers["02_minhash"].total().dropped["near_duplicate"].documents == 2
    assert [example.measures for example in ledgers["02_minhash"].examples["near_duplicate"]] == [{"documents alike": 3}] * 2
    kept = documents(tmp_path / "out" / "stages" / "02_minhash")
    assert len(kept) == 9 and not {"duplicate_count", "minhash_cluster_size"} & {key for item in kept for key in item}
    page = tmp_path / "out" / "report.html"
    groups = {(bar["series"], bar["x"]): float(bar["y"]) for bar in figure(page, "groups_of_duplicates")}
    assert {bar: count for bar, count in groups.items() if count} == {
        ("exact_dedup", "2 to 3"): 1,
        ("exact_dedup", "4 to 7"): 1,
        ("minhash", "2 to 3"): 1,
    }
    assert ("minhash", "8 to 15") in groups
    check_page(page)


def test_quality_shows_what_its_rules_looked_at(tmp_path):
    texts = [*(sentences(n, 60) for n in range(8)), *(sentences(n, 4) for n in range(20, 24))]
    path = write_jsonl(tmp_path / "laws.jsonl", texts)
    settings = {"min_stop_words": 0, "top_ngrams": [], "duplicate_ngrams": []}
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [{"quality": settings}])
    run(corpus, workers=1)
    page = tmp_path / "out" / "report.html"
    words = figure(page, "quality-words")
    assert {bar["series"] for bar in words} == {"kept (8)", "dropped (4)"}
    for name, kept_above in (("kept (8)", 50), ("dropped (4)", 0)):
        there = [bar for bar in words if bar["series"] == name and float(bar["y"])]
        assert sum(float(bar["y"]) for bar in there) == pytest.approx(1)
        assert all(float(bar["high"]) > kept_above for bar in there)
        assert name.startswith("kept") or all(float(bar["low"]) < 50 for bar in there)
    for name in ("mean_word_length", "stop_words", "duplicate_lines", "punctuated_lines", "alphabetic_words"):
        assert figure(page, f"quality-{name}")
    example = sum_ledgers([tmp_path / "out" / "stages" / "01_quality" / "ledger.json"]).examples["short_document"][0]
    assert example.measures["words"] < 10 and example.measures["punctuated_lines"] == 1


def test_a_source_has_one_colour_in_both_panels_of_the_funnel_and_the_legend_tells_it():
    """Many short documents in some sources, few long ones in others: by documents they rank the other way round."""
    from preprocessing.pipeline import plots

    documents = {f"s{number}": [10 * number, 5 * number] for number in range(1, 10)}
    words = {f"s{number}": [10_000 // number, 1_000 // number] for number in range(1, 10)}
    drawn = plots.funnel(["read", "quality"], documents, words, "words")
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(drawn["csv"].partition(",")[2]).decode())))
    expected = ["s1", "s2", "s3", "s4", "s5", "4 other sources"]
    for panel, last in (("documents left", 10 * (6 + 7 + 8 + 9)), ("words left", sum(10_000 // n for n in (6, 7, 8, 9)))):
        bars = [row for row in rows if row["panel"] == panel and row["y"] == "read"]
        assert [row["series"] for row in bars] == expected  # bars get the colours in this order
        assert float(bars[-1]["x"]) == last
    # as drawn: for each panel the colours of its bars, stage by stage, then those of the legend
    marks = re.findall(r"fill: var\(--mark-(\d)\)", drawn["svg"])
    assert marks == [mark for mark in "123456" for _ in range(2)] * 2 + list("123456")


def test_a_measure_over_many_sizes_has_an_axis_of_sizes():
    from preprocessing.pipeline import plots

    for values, even in ((("10", "500", "90000"), False), (("0", "500", "90000"), True), (("10", "20", "40"), True)):
        drawn = plots.measure("words", {"kept": dict.fromkeys(values, 2)})
        rows = list(csv.DictReader(io.StringIO(base64.b64decode(drawn["csv"].partition(",")[2]).decode())))
        edges = [float(rows[0]["low"]), *(float(bar["high"]) for bar in rows)]
        steps = [after - before if even else after / before for before, after in pairwise(edges)]
        assert len(steps) == 3 and steps == pytest.approx([steps[0]] * 3)
        assert (edges[0], edges[-1]) == pytest.approx((float(values[0]), float(values[-1])))


def test_a_run_that_a_limit_stops_leaves_a_page_that_says_what_is_wrong(tmp_path):
    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(10)))
    with open(path, "a") as handle:
        handle.write("{broken\n" * 3)
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [{"exact_dedup": {}}])
    with pytest.raises(UserError, match="3 of 13 records cannot be read"):
        run(corpus, workers=1)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "Not finished: read, exact_dedup still to be done" in html
    assert row("laws", "read", "not_json", "3") in html
    check_page(tmp_path / "out" / "report.html")


@pytest.mark.parametrize("columns", [40, 120])
def test_status_fits_a_narrow_terminal_and_is_a_line_a_stage_in_a_pipe(corpus, columns, monkeypatch, capsys):
    run(corpus, workers=1)
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "40")  # as a shell may export it
    status(corpus)
    piped = capsys.readouterr().out
    assert re.search(r"^read .* not_json 1 *$", piped, re.MULTILINE)
    assert re.search(r"^exact_dedup .* exact_duplicate 6 *$", piped, re.MULTILINE)
    assert "\x1b" not in piped
    terminal = Console(file=io.StringIO(), width=columns, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr("preprocessing.pipeline.status.console", lambda: terminal)
    status(corpus, examples=True)
    shown = terminal.file.getvalue()
    assert max(map(len, shown.splitlines())) <= columns
    assert "exact_duplicate 6" in " ".join(shown.split()) or columns == 40
