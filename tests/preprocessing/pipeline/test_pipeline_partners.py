"""Which document stays for one that goes: in examples, in the lists of dropped documents, in groups."""

import json
import random
import re

import numpy as np
import pytest
from browser_pages import check_page
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_runs import documents, jsonl_source, lines_of, sentences, set_aside, write_corpus, write_jsonl

from preprocessing.pipeline.ledger import GROUPS, Recorder, TaskLedger, read_ledger
from preprocessing.pipeline.partners import PARTNER, NamePartners, NoteIds, write_partners
from preprocessing.pipeline.run import run
from preprocessing.pipeline.status import status

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)


def dropped(stage):
    return [line for path in sorted((stage / "dropped").glob("*.jsonl.zst")) for line in lines_of(path)]


def stage_of(folder, name):
    return folder / "out" / "stages" / name


def test_exact_duplicates_name_the_first_of_their_text(tmp_path, capsys):
    draw = random.Random(3)
    numbers = [*range(30), *(draw.randrange(30) for _ in range(40)), 5]
    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, numbers))
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [{"exact_dedup": {}}], shard_size="2KB")
    run(corpus, workers=2)
    stage = stage_of(tmp_path, "01_exact_dedup")
    first = {number: f"laws/0/{number + 1}" for number in range(30)}
    expected = [(f"laws/0/{at + 1}", first[number]) for at, number in enumerate(numbers) if at >= 30]
    listed = dropped(stage)
    assert [(line["id"], line["duplicate_of"]) for line in listed] == expected
    assert {line["reason"] for line in listed} == {"exact_duplicate"}
    assert [line["origin"] for line in listed] == [f"{path}:{at + 1}" for at in range(30, len(numbers))]
    ledger = read_ledger(stage / "ledger.json")
    sizes = {first[number]: numbers.count(number) for number in range(30)}
    for example in ledger.examples["exact_duplicate"]:
        assert (example.id, example.duplicate_of) in expected
        assert example.measures == {"documents alike": sizes[example.duplicate_of]}
    assert {group.id: group.documents for group in ledger.largest}.items() <= sizes.items()
    assert sorted((group.documents for group in ledger.largest), reverse=True) == sorted(sizes.values(), reverse=True)[:GROUPS]
    assert sum(ledger.alike.values()) == sum(size > 1 for size in sizes.values())
    assert not {"duplicate_of", "duplicate_count"} & {key for document in documents(stage) for key in document}
    capsys.readouterr()
    status(corpus, examples=True)
    shown = capsys.readouterr().out
    assert re.search(r"\(duplicate of laws/0/\d+, documents alike \d\)", shown)
    largest = ledger.largest[0]
    assert f"{largest.documents} documents, {largest.id} stayed: {largest.text[:20]}" in shown
    html = (tmp_path / "out" / "report.html").read_text()
    assert "The largest groups" in html and f"{largest.documents} documents, {largest.id} stayed" in html
    check_page(tmp_path / "out" / "report.html")


def test_near_duplicates_name_the_one_of_their_cluster_that_stays(tmp_path):
    texts = [f"{sentences(number, 60)} {word}" for word in ("bir", "iki", "üç") for number in range(8)]
    path = write_jsonl(tmp_path / "laws.jsonl", [*texts, sentences(99, 60)])
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [{"minhash": {}}], shard_size="1KB")
    run(corpus, workers=2)
    stage = stage_of(tmp_path, "01_minhash")
    kept = {document["id"]: document["text"] for document in documents(stage)}
    listed = dropped(stage)
    assert len(kept) == 9 and len(listed) == 16
    by_id = {f"laws/0/{number + 1}": text for number, text in enumerate(texts)}
    for line in listed:
        assert kept[line["duplicate_of"]].split()[:60] == by_id[line["id"]].split()[:60]
    ledger = read_ledger(stage / "ledger.json")
    assert ledger.alike == {3: 8} and [group.documents for group in ledger.largest] == [3] * 8
    assert {group.id for group in ledger.largest} <= kept.keys()


def test_a_repeated_id_names_the_record_that_has_it_first(tmp_path):
    path = tmp_path / "laws.jsonl"
    keys = [*range(12), 3, 7, 3]
    path.write_text("".join(json.dumps({"key": key, "text": sentences(at)}) + "\n" for at, key in enumerate(keys)))
    source = jsonl_source(path, id_field="key", limits={"share": 1.0})
    run(write_corpus(tmp_path / "corpus.yaml", [source], shard_size="1KB"), workers=1)
    found = {record["line"]: record["detail"] for record in set_aside(stage_of(tmp_path, "00_read"))}
    assert found == {
        line: f"the id '{key}' stands in an earlier record, {path}:{key + 1}" for line, key in ((13, 3), (14, 7), (15, 3))
    }


def test_a_stage_that_drops_nothing_leaves_no_list(tmp_path):
    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(5)))
    run(write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [{"exact_dedup": {}}]), workers=1)
    assert not stage_of(tmp_path, "01_exact_dedup").joinpath("dropped").exists()


@settings(max_examples=30)
@given(shards=st.lists(st.lists(NAMES, max_size=6), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_names_and_counts_are_those_of_a_table_of_all(tmp_path_factory, shards, seed):
    work, draw = tmp_path_factory.mktemp("work"), random.Random(seed)
    every = [(shard, number) for shard, names in enumerate(shards) for number in range(len(names))]
    for shard, names in enumerate(shards):
        noted = NoteIds(work).run((Document("", name) for name in names), shard)
        assert [document.id for document in noted] == names
    stays = [place for place in every if draw.random() < 0.4]
    for_whom = {place: draw.choice(stays) for place in every if place not in stays} if stays else {}
    tables = []
    for shard in range(len(shards)):
        rows = [(number, *kept) for (where, number), kept in for_whom.items() if where == shard]
        tables.append(np.array(draw.sample(rows, len(rows)), PARTNER))
    write_partners(work, tables)
    counts = {place: list(for_whom.values()).count(place) for place in stays}
    for shard, names in enumerate(shards):
        found = list(NamePartners(work).run((Document("", name) for name in names), shard))
        for number, document in enumerate(found):
            kept = for_whom.get((shard, number))
            assert document.metadata.get("duplicate_of") == (shards[kept[0]][kept[1]] if kept else None)
            assert document.metadata.get("duplicate_count", 0) == counts.get(kept or (shard, number), 0)


def test_any_stage_may_say_who_stays_and_the_sum_of_tasks_has_the_largest_groups():
    tasks = []
    for task in range(3):
        recorder = Recorder()
        for number in range(GROUPS):
            size = {"duplicate_count": 10 * task + number}
            metadata = {"source": "a", "origin": f"{task}", **size}
            kept, gone = (Document("metin", f"{task}.{number}{end}", metadata=dict(metadata)) for end in ("", "x"))
            gone.metadata |= {"duplicate_of": kept.id, "drop_detail": "of the same day"}
            for document in (kept, gone):
                recorder.enter(document)
            recorder.keep(kept)
            recorder.drop(gone, "same_day")
        tasks.append(recorder.finish())
    whole = TaskLedger()
    for ledger in tasks:
        whole.add(ledger)
    assert [(group.documents, group.id) for group in whole.largest] == [(30 - n, f"2.{9 - n}") for n in range(GROUPS)]
    for example in whole.examples["same_day"]:
        assert example.duplicate_of == example.id.removesuffix("x")
        assert example.notes()[:2] == [f"duplicate of {example.duplicate_of}", "of the same day"]


@pytest.mark.parametrize("stage", ["exact_dedup", "minhash"])
def test_the_list_of_dropped_documents_is_the_same_for_any_workers(tmp_path, stage):
    path = write_jsonl(tmp_path / "laws.jsonl", [*map(sentences, range(12)), *map(sentences, range(6))])
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [{stage: {}}], shard_size="1KB")
    seen = []
    for workers in (1, 3):
        run(corpus, workers=workers)
        seen.append({item.name: item.read_bytes() for item in stage_of(tmp_path, f"01_{stage}").glob("dropped/*")})
        (tmp_path / "out").rename(tmp_path / f"run{workers}")
    assert seen[0] == seen[1] and seen[0]
