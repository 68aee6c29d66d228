"""Settings are checked before an earlier run's work is removed; what a line does not name is counted."""

import re

import pytest
from pipeline_runs import jsonl_source, outputs, sentences, set_aside, write_corpus, write_jsonl

from mecellem.errors import UserError
from preprocessing.pipeline.run import run
from preprocessing.pipeline.status import counts_of, status

STAGES = [{"repair": {}}, {"exact_dedup": {}}]


@pytest.fixture
def laws(tmp_path):
    return write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(12)), court="ceza", date="2020")


def corpus_of(tmp_path, path, stages=STAGES, **source):
    return write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path, **source)], stages, shard_size="1KB")


@pytest.mark.parametrize("keep_shards", ["all", "last"])
@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ({"semantic_dedup": {"model": "nope"}}, "nope is no folder of a model"),
        ({"language": {"model": "nope.bin"}}, "nope.bin is not a file"),
        ({"decontaminate": {"sets": {"exams": ["nope.jsonl"]}}}, "nope.jsonl"),
    ],
)
def test_a_stage_that_cannot_be_made_costs_no_work(tmp_path, laws, keep_shards, stage, sentence):
    """It stands before stages that are done, whose work its refusal must leave."""
    run(corpus_of(tmp_path, laws), workers=1)
    before = outputs(tmp_path / "out")
    source = jsonl_source(laws)
    stages = [STAGES[0], stage, STAGES[1]]
    corpus = write_corpus(tmp_path / "corpus.yaml", [source], stages, shard_size="1KB", keep_shards=keep_shards)
    with pytest.raises(UserError, match=sentence):
        run(corpus, workers=1)
    assert outputs(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"keep_fields": ["cuort"]}, "'cuort' that `keep_fields` names: did you mean 'court'"),
        ({"text_field": "txt"}, "'txt' that `text_field` names: did you mean 'text'"),
    ],
)
def test_a_mistyped_field_costs_no_work_either(tmp_path, laws, capsys, source, sentence):
    run(corpus_of(tmp_path, laws), workers=1)
    before = outputs(tmp_path / "out")
    with pytest.raises(UserError, match=f"source laws: none of the first records has the field {sentence}"):
        run(corpus_of(tmp_path, laws, **source), workers=1)
    assert outputs(tmp_path / "out") == before
    run(corpus_of(tmp_path, laws, keep_fields=["court", "esas_no"]), workers=1)  # another field than any may come later
    assert "the settings of read changed (keep_fields): removed 00_read" in capsys.readouterr().out


def test_a_field_that_later_records_have_may_be_kept_when_nothing_is_lost(tmp_path, laws):
    with open(laws, "a") as handle:
        handle.writelines(f'{{"text": "{sentences(n)}", "court": "x"}}\n' for n in range(100, 200))
        handle.write(f'{{"text": "{sentences(1000)}", "courts": "x"}}\n')
    run(corpus_of(tmp_path, laws, keep_fields=["courts"]), workers=1)
    assert (tmp_path / "out" / "stages" / "02_exact_dedup" / "done.json").exists()


def test_lines_tell_how_many_reasons_they_do_not_name(tmp_path, capsys):
    assert counts_of({"a": 1, "b": 1000, "c": 3}, 2) == "b 1,000, c 3, 1 more"
    assert counts_of({"a": 1, "b": 2}, 2) == "b 2, a 1"
    bad = ["kısa", "!!! " * 60, "a b c d e f " * 30, "- madde\n" * 60, f"{'x' * 90} " * 60, "mahkeme karar dava\n" * 40]
    corpus = corpus_of(tmp_path, write_jsonl(tmp_path / "bad.jsonl", [*bad, *map(sentences, range(3))]), [{"quality": {}}])
    for lines in (run, status):
        lines(corpus)
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("quality "))
        named = sum(int(count) for count in re.findall(r"_\w+ (\d+)", line))
        assert named < 9 and " more" in line, line


def test_a_link_that_leads_nowhere_is_a_missing_file_of_its_pattern(tmp_path, laws):
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    pattern = tmp_path / "*.jsonl"
    with pytest.raises(UserError, match=r"source laws: 1 file vanished or cannot be opened .*gone.*limits: missing_files"):
        run(corpus_of(tmp_path, pattern), workers=1)  # which stops at the first
    run(corpus_of(tmp_path, pattern, limits={"missing_files": 2}), workers=1)
    found = [(record["file"], record["reason"]) for record in set_aside(tmp_path / "out" / "stages" / "00_read")]
    assert found == [(str(tmp_path / name), "missing_file") for name in ("gone.jsonl", "loop.jsonl")]
    with pytest.raises(UserError, match=r"gone\.jsonl is not there: check `paths`"):
        run(corpus_of(tmp_path, tmp_path / "gone.jsonl"), workers=1)
