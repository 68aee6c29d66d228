from itertools import pairwise

import pytest
from pipeline_runs import jsonl_source, sentences, write_corpus, write_jsonl

from mecellem.errors import UserError
from preprocessing.pipeline.config import read_corpus
from preprocessing.pipeline.plan import make_plan
from preprocessing.pipeline.registry import STAGES

GOOD = """\
out: out
sources:
  - name: laws
    kind: jsonl
    paths: [laws.jsonl]
stages:
  - exact_dedup: {}
"""


def written(tmp_path, text):
    path = tmp_path / "corpus.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("out: out\n", "out: out\nshards: 5\n", r"line 2: unknown key `shards`: did you mean `shard_size`\?"),
        (
            "kind: jsonl",
            "kind: jsonl\n    weigth: 2",
            r"line 5: unknown key `sources\[0\] \(laws\)\.weigth`: did you mean `weight`\?",
        ),
        ("kind: jsonl", "kind: json", r"line 4: .*kind` is 'json': it must be 'jsonl', 'parquet'"),
        ("kind: jsonl", "kind: jsonl\n    weight: 0", r"line 5: .*weight` is 0: it must be greater than 0"),
        (
            "kind: jsonl",
            "kind: jsonl\n    pdf: {dpi: 300}",
            r"line 5: .*these are options of kind: pdf, this source is of kind: jsonl",
        ),
        ("kind: jsonl", "kind: jsonl\n    keep_fields: [id]", r"line 5: .*'id' is written for every document: leave it out"),
        ("out: out", "out: out\nshard_size: 5 apples", r"line 2: `shard_size`: '5 apples' is not a size: write 256MB"),
        ("out: out", "out: out\nlimits: {share: 2}", r"line 2: `limits\.share` is 2: it must be less than or equal to 1"),
        ("exact_dedup: {}", "exact_dup: {}", r"line 7: unknown stage `exact_dup`: did you mean `exact_dedup`\?"),
        ("exact_dedup: {}", "exact_dedup: {normalise: true}", r"line 7: unknown key .*normalise`: did you mean `normalize`\?"),
        ("exact_dedup: {}", "exact_dedup: {normalize: 3}", r"line 7: .*normalize` is 3: it must be true or false"),
        ("kind: jsonl", "kind: jsonl\n    weight: .inf", r"line 5: .*weight` is inf: it must be a finite number"),
        ("kind: jsonl", "kind: jsonl\n    keep_fields: [language]", r"line 5: .*a stage writes 'language': give the records'"),
        (
            "name: laws",
            "name: our laws",
            r"line 3: .*name`: 'our laws' becomes the name of files: take letters from A to Z, digits, _ \. and -, such as",
        ),
        (
            "kind: jsonl",
            "kind: pdf\n    pdf: {ocr: tesserakt}",
            r"line 5: .*ocr`: 'tesserakt' is no OCR: give tesseract, none, or",
        ),
        ("  - exact_dedup: {}", "  - exact_dedup", r"line 7: `stages\[0\]` is 'exact_dedup': it must be a mapping of"),
        ("exact_dedup: {}", "language: {model: 3}", r"line 7: .*model` is 3: it must be text: put it in quotes"),
        ("  - exact_dedup: {}", "  - exact_dedup: {}\n  - exact_dedup: {}", r"line 8: exact_dedup stands twice in `stages`"),
        ("  - exact_dedup: {}", "  - {exact_dedup: {}, minhash: {}}", r"line 7: each item of `stages` is one stage"),
        ("paths: [laws.jsonl]", "paths: []", r"line 5: .*paths` is \[\]: it must not be empty"),
        ("    paths: [laws.jsonl]\n", "", r"line 3: `sources\[0\] \(laws\)\.paths` is missing: add it"),
    ],
)
def test_a_wrong_line_is_named_with_what_to_do(tmp_path, old, new, sentence):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(UserError, match=rf"corpus\.yaml, {sentence}"):
        read_corpus(path)


def test_a_source_keeps_the_limits_that_it_does_not_set(tmp_path):
    text = GOOD.replace("out: out", "out: out\nlimits: {record_size: 200MB, missing_files: 3}")
    corpus = read_corpus(written(tmp_path, text.replace("kind: jsonl", "kind: jsonl\n    limits: {share: 0.5}")))
    limits = corpus.limits_of("laws")
    assert (limits.record_size, limits.missing_files, limits.share) == (200 * 10**6, 3, 0.5)


def test_two_sources_of_one_name_are_refused(tmp_path):
    path = write_corpus(tmp_path / "corpus.yaml", [jsonl_source("a.jsonl"), jsonl_source("b.jsonl")])
    with pytest.raises(UserError, match="two sources are named 'laws'"):
        read_corpus(path)


def test_a_weight_that_would_do_nothing_is_refused(tmp_path):
    weighted = GOOD.replace("kind: jsonl", "kind: jsonl\n    weight: 3")
    sentence = r"corpus\.yaml, line 5: `sources\[0\] \(laws\)\.weight` goes into tokens/mixture\.yaml, .*: set that, or take"
    for one_corpus in ("tokenize: {tokenizer: t}\n", "tokenize: {tokenizer: t, per_source: false}\n"):
        with pytest.raises(UserError, match=sentence):
            read_corpus(written(tmp_path, weighted + one_corpus))
        read_corpus(written(tmp_path, GOOD + one_corpus))
    for later in ("", "tokenize: {tokenizer: t, per_source: true}\n"):
        assert read_corpus(written(tmp_path, weighted + later)).file.sources[0].weight == 3


def test_defaults_are_filled_in_and_sizes_have_units(tmp_path):
    corpus = read_corpus(
        written(tmp_path, GOOD.replace("out: out", "out: out\nshard_size: 1.5MiB\nlimits: {record_size: 2KB}"))
    )
    assert corpus.file.shard_size == 3 * 2**19
    assert corpus.limits_of("laws").record_size == 2000
    assert corpus.stages[0].settings.normalize is True
    assert corpus.file.sources[0].licence == "unknown"


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("gone.jsonl", r"gone\.jsonl is not there: check `paths`"),
        ("*.jsonl.gz", r"\*\.jsonl\.gz matches no file: check `paths`"),
        ("gone/*/*.jsonl", r"\*\.jsonl matches no file: the folder .*/gone is not there, check `paths`"),
        ("laws.txt", r"laws\.txt does not look like kind: jsonl: its name should end in \.jsonl"),
        ("folder.jsonl", r"folder\.jsonl is a folder: write .*/folder\.jsonl/\*\.jsonl$"),
        ("folder", r"folder is a folder: write .*/folder/\*\.jsonl$"),
    ],
)
def test_paths_that_lead_nowhere_are_told_of_before_any_work(tmp_path, pattern, sentence):
    (tmp_path / "laws.txt").touch()
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"source laws: .*{sentence}"):
        make_plan(read_corpus(write_corpus(tmp_path / "corpus.yaml", [jsonl_source(tmp_path / pattern)])))


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    from preprocessing.sources import planning

    monkeypatch.setattr(planning.os, "access", lambda *_: False)  # root, as in CI, may read everything
    with pytest.raises(UserError, match=r"matches no file: the folder .* may not be read, check its permissions"):
        make_plan(read_corpus(write_corpus(tmp_path / "corpus.yaml", [jsonl_source(tmp_path / "*.jsonl.gz")])))


def test_tasks_depend_on_the_input_alone_and_hold_one_source_each(tmp_path):
    small = [write_jsonl(tmp_path / f"{n}.jsonl", [sentences(n, 5)]) for n in range(10)]
    large = write_jsonl(tmp_path / "large.jsonl", map(sentences, range(50)))
    sources = [jsonl_source(*small, name="small"), jsonl_source(large, name="large")]
    corpus = read_corpus(write_corpus(tmp_path / "corpus.yaml", sources, shard_size="1KB"))
    plan = make_plan(corpus)
    assert plan == make_plan(corpus)
    parts = [(task.reading.source, part) for task in plan.tasks for part in task.parts]
    assert [part.path for source, part in parts if source == "small"] == [str(path) for path in small]
    ranges = [(part.start, part.end) for source, part in parts if source == "large"]
    assert ranges[0][0] == 0 and ranges[-1][1] == large.stat().st_size
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))
    assert len(plan.tasks) < len(parts)


def test_every_stage_can_be_made_and_its_reasons_are_sentences():
    for kind in STAGES.values():
        assert kind.settings_type.model_config["extra"] == "forbid", kind.name
        assert kind.settings_type.model_config["frozen"], kind.name
        for reason, sentence in kind.reasons.items():
            assert reason.isidentifier() and " " in sentence and not sentence.endswith("."), (kind.name, reason)
