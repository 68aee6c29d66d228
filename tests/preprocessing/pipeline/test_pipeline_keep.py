"""`keep_shards`, limits that stop a run early, and hints about stages that drop most of a source."""

import json

import pytest
from pipeline_runs import documents, jsonl_source, outputs, sentences, write_corpus, write_jsonl

from mecellem.errors import UserError
from preprocessing.pipeline.config import read_corpus
from preprocessing.pipeline.layout import write_whole
from preprocessing.pipeline.ledger import Location, TaskLedger
from preprocessing.pipeline.limits import EarlyLimits
from preprocessing.pipeline.plan import make_plan
from preprocessing.pipeline.report import report
from preprocessing.pipeline.run import run
from preprocessing.pipeline.status import stage_states, status

STAGES = [{"repair": {}}, {"exact_dedup": {}}, {"pii": {}}]
NAMES = ["00_read", "01_repair", "02_exact_dedup", "03_pii"]


@pytest.fixture
def corpus(tmp_path):
    path = write_jsonl(tmp_path / "laws.jsonl", [*map(sentences, range(40)), *map(sentences, range(5))])
    return write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], STAGES, shard_size="3KB", keep_shards="last")


def shards(corpus):
    """How many shards each stage has."""
    folder = corpus.parent / "out" / "stages"
    return [len(list((folder / name / "shards").glob("*"))) for name in NAMES]


def change(corpus, old, new):
    assert old in corpus.read_text()
    corpus.write_text(corpus.read_text().replace(old, new))


def test_only_the_last_shards_stay_and_everything_that_is_told_does(corpus, capsys):
    run(corpus, workers=1)
    *freed, last = shards(corpus)
    assert freed == [0, 0, 0] and last > 3
    kept = outputs(corpus.parent / "out")
    capsys.readouterr()
    status(corpus)
    shown = capsys.readouterr().out
    assert "freed   the shards of read, repair, exact_dedup (keep_shards: last)" in shown
    assert "exact_duplicate 5" in shown
    assert [state.ready for state in stage_states(read_corpus(corpus))] == [last] * 4
    report(corpus)
    assert "40 of 45 documents" in (corpus.parent / "out" / "report.html").read_text()
    run(corpus, workers=1)
    assert capsys.readouterr().out.count("done already") == 4
    assert outputs(corpus.parent / "out") == kept


def test_other_settings_read_the_sources_again_and_one_sentence_says_so(corpus, capsys):
    run(corpus, workers=1)
    change(corpus, "exact_dedup: {}", "exact_dedup: {normalize: false}")
    capsys.readouterr()
    run(corpus, workers=1)
    said = [line for line in " ".join(capsys.readouterr().out.split()).split("again ") if "removed" in line]
    assert len(said) == 1
    assert "the settings of exact_dedup changed (normalize): removed 00_read, 01_repair, 02_exact_dedup, 03_pii" in said[0]
    assert "(keep_shards: last had freed the shards in between)" in said[0]
    assert shards(corpus)[:3] == [0, 0, 0]
    after = outputs(corpus.parent / "out")
    (corpus.parent / "out").rename(corpus.parent / "again")
    run(corpus, workers=1)
    assert outputs(corpus.parent / "out") == after


def test_a_stage_more_goes_on_and_one_less_reads_again(corpus, capsys):
    run(corpus, workers=1)
    change(corpus, "- pii: {}", "- pii: {}\n- minhash: {}")
    capsys.readouterr()
    run(corpus, workers=1)
    assert "removed" not in capsys.readouterr().out
    assert shards(corpus) == [0, 0, 0, 0]
    change(corpus, "- minhash: {}", "")
    run(corpus, workers=1)
    assert "pii is the last stage now: removed 00_read" in " ".join(capsys.readouterr().out.split())
    assert shards(corpus)[3] > 3


def test_shards_are_freed_when_it_is_asked_for_and_not_before(corpus, capsys):
    change(corpus, "keep_shards: last", "keep_shards: all")
    run(corpus, workers=1)
    assert min(shards(corpus)) > 3
    everything = documents(corpus.parent / "out" / "stages" / "03_pii")
    change(corpus, "keep_shards: all", "keep_shards: last")
    run(corpus, workers=1)
    assert shards(corpus)[:3] == [0, 0, 0]
    assert documents(corpus.parent / "out" / "stages" / "03_pii") == everything
    change(corpus, "keep_shards: last", "keep_shards: all")
    capsys.readouterr()
    run(corpus, workers=1)  # what is freed is not missed until a setting changes
    assert "removed" not in capsys.readouterr().out


def test_a_run_that_stopped_between_two_stages_goes_on(corpus):
    run(corpus, workers=1)
    undisturbed = outputs(corpus.parent / "out")
    change(corpus, "keep_shards: last", "keep_shards: all")
    (corpus.parent / "out").rename(corpus.parent / "undisturbed")
    run(corpus, workers=1)
    last = corpus.parent / "out" / "stages" / "03_pii"
    (last / "done.json").unlink()
    (last / "ledger" / "00001.json").unlink()
    for mark in (last / "logs").glob("*/completions/00001"):
        mark.unlink()
    change(corpus, "keep_shards: all", "keep_shards: last")
    run(corpus, workers=1)
    assert outputs(corpus.parent / "out") == undisturbed


def test_a_source_of_nothing_but_broken_records_stops_the_run_at_its_first_tasks(tmp_path):
    bad = write_jsonl(tmp_path / "bad.jsonl", ["x"] * 4000)
    good = write_jsonl(tmp_path / "good.jsonl", map(sentences, range(10)))
    sources = [jsonl_source(bad, name="bad", text_field="body", limits={"count": 50}), jsonl_source(good, name="good")]
    corpus = write_corpus(tmp_path / "corpus.yaml", sources, shard_size="2KB")
    with pytest.raises(UserError, match=r"source bad: [\d,]+ of [\d,]+ records so far cannot be read, .*has no text field"):
        run(corpus, workers=1)
    tasks = len(make_plan(read_corpus(corpus)).tasks)
    assert len(list((tmp_path / "out" / "stages" / "00_read" / "ledger").iterdir())) < tasks / 4
    with pytest.raises(UserError, match="source bad: "):
        run(corpus, workers=2)  # what was read is held against the limits before more is
    corpus.write_text(corpus.read_text().replace("count: 50", "count: 5000\n    share: 1.0"))
    run(corpus, workers=1)
    assert len(documents(tmp_path / "out" / "stages" / "00_read")) == 10


def ledger(source, broken, whole):
    return TaskLedger.model_validate(
        {
            "sources": {
                source: {"entered": {"documents": whole - broken}, "quarantined": {"not_json": broken} if broken else {}}
            },
            "locations": {"not_json": [Location(source=source, file="x", line=3, detail="")]} if broken else {},
        }
    )


def test_a_share_is_held_against_a_source_that_was_read_to_its_end_in_any_order(tmp_path):
    paths = [write_jsonl(tmp_path / f"{name}.jsonl", map(sentences, range(20))) for name in "ab"]
    sources = [jsonl_source(path, name=path.stem) for path in paths]
    corpus = read_corpus(write_corpus(tmp_path / "corpus.yaml", sources, shard_size="2KB", limits={"share": 0.3}))
    plan, limits = make_plan(corpus), {name: corpus.limits_of(name) for name in "ab"}
    of_a = [number for number, task in enumerate(plan.tasks) if task.reading.source == "a"]
    assert len(of_a) >= 3
    for number, task in enumerate(plan.tasks):
        broken = 9 if number in of_a[-2:] else 0
        write_whole(tmp_path / "ledger" / f"{number:05d}.json", ledger(task.reading.source, broken, 10))
    for order in (of_a, of_a[::-1]):
        early = EarlyLimits(plan, limits, tmp_path / "ledger")
        for number in order[:-1]:
            early.add(number)  # nine of ten are broken, and the tasks to come may mend it
        with pytest.raises(UserError, match=rf"source a: 18 of {10 * len(of_a)} records cannot be read"):
            early.add(order[-1])


def test_a_stage_that_drops_most_of_a_source_gets_a_sentence(tmp_path, capsys):
    short = write_jsonl(tmp_path / "short.jsonl", [sentences(number, 6) for number in range(30)])
    few = write_jsonl(tmp_path / "few.jsonl", [sentences(1, 6)])
    corpus = write_corpus(
        tmp_path / "corpus.yaml", [jsonl_source(short, name="short"), jsonl_source(few, name="few")], [{"quality": {}}]
    )
    run(corpus, workers=1)
    ran = " ".join(capsys.readouterr().out.split())
    status(corpus)
    shown = " ".join(capsys.readouterr().out.split())
    for said in (ran, shown):
        assert "hint quality dropped 100% of source short (30 of 30 documents), 30 because fewer words than min_words" in said
        assert "lower min_words; for a source of single sentences also set min_stop_words: 0" in said
        assert "source few" not in said
    corpus.write_text(corpus.read_text().replace("quality: {}", "quality: {min_words: 3, min_stop_words: 0, top_ngrams: []}"))
    run(corpus, workers=1)
    assert "hint" not in capsys.readouterr().out
    kept = json.loads((tmp_path / "out" / "stages" / "01_quality" / "ledger.json").read_text())["sources"]["short"]["kept"]
    assert kept["documents"] > 25
