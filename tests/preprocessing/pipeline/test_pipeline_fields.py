"""`keep_fields`: a name that no record has is told of, one that is mistyped stops the run at the end of reading."""

import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from pipeline_runs import documents, jsonl_source, sentences, write_corpus

import preprocessing.stages
from mecellem.errors import UserError
from preprocessing.pipeline import config
from preprocessing.pipeline.layout import OWN_TO_STAGE
from preprocessing.pipeline.report import report
from preprocessing.pipeline.run import run
from preprocessing.pipeline.status import status


@pytest.fixture
def laws(tmp_path):
    """Thirty records with `Mahkeme`, of which one has a `tarih` too; ids repeat."""
    path = tmp_path / "laws.jsonl"
    records = [{"key": n % 28, "text": sentences(n), "Mahkeme": "ceza"} for n in range(30)]
    records[29] |= {"tarih": "2020"}
    records[5] |= {"tarih": None}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def corpus_of(tmp_path, path, fields, **settings):
    source = jsonl_source(path, keep_fields=fields, limits={"share": 0.5}, **settings)
    return write_corpus(tmp_path / "corpus.yaml", [source], [{"exact_dedup": {}}], shard_size="1KB")


@pytest.mark.parametrize(("name", "meant"), [("mahkeme", "Mahkeme"), ("tarihi", "tarih"), ("mahkme", "Mahkeme")])
def test_a_mistyped_name_stops_the_run_at_the_end_of_reading(tmp_path, laws, name, meant):
    corpus = corpus_of(tmp_path, laws, [name])
    for _ in range(2):  # until it is mended
        with pytest.raises(
            UserError, match=f"source laws: no record has the field '{name}' that `keep_fields` names: did you mean '{meant}'"
        ):
            run(corpus, workers=1)
    assert not (tmp_path / "out" / "stages" / "01_exact_dedup" / "done.json").exists()
    corpus.write_text(corpus.read_text().replace(name, meant))
    run(corpus, workers=1)
    kept = documents(tmp_path / "out" / "stages" / "01_exact_dedup")
    assert sum(meant in document for document in kept) == (30 if meant == "Mahkeme" else 2)


def test_a_field_of_some_records_is_enough(tmp_path, laws, capsys):
    run(corpus_of(tmp_path, laws, ["tarih", "Mahkeme"]), workers=1)
    assert "keep_fields" not in capsys.readouterr().out


def test_a_field_that_only_a_record_with_a_repeated_id_had_is_told_of(tmp_path, laws, capsys):
    """The one with `tarih: 2020` repeats an id, so that no document has it; the other one with `tarih` is taken out."""
    lines = [line for line in laws.read_text().splitlines(keepends=True) if "null" not in line]
    laws.write_text("".join(lines))
    run(corpus_of(tmp_path, laws, ["tarih"]), workers=1)
    assert "no record has the field" not in capsys.readouterr().out
    (tmp_path / "out").rename(tmp_path / "before")
    run(corpus_of(tmp_path, laws, ["tarih"], id_field="key"), workers=1)
    assert "no record has the field 'tarih'" in capsys.readouterr().out


def test_another_name_is_told_of_by_run_status_and_page(tmp_path, laws, capsys):
    corpus = corpus_of(tmp_path, laws, ["esas_no"])
    run(corpus, workers=1)
    sentence = "source laws: no record has the field 'esas_no' that `keep_fields` names; the fields are Mahkeme, key, tarih"
    assert f"note    {sentence}" in capsys.readouterr().out
    status(corpus)
    assert f"note    {sentence}" in capsys.readouterr().out
    report(corpus)
    page = re.sub("&#39;", "'", (tmp_path / "out" / "report.html").read_text())
    assert sentence[1:] in page


def test_plain_text_has_no_fields(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(sentences(1))
    source = {"name": "books", "kind": "text", "paths": [str(tmp_path / "a.txt")], "keep_fields": ["author"]}
    run(write_corpus(tmp_path / "corpus.yaml", [source]), workers=1)
    assert "names; the fields are the text alone" in capsys.readouterr().out


def test_a_column_that_no_parquet_file_has_is_told_of_before_any_work(tmp_path):
    for name, column in (("a", "court"), ("b", "date")):
        table = pyarrow.table({"text": [sentences(1)], column: ["x"]})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    source = {"name": "laws", "kind": "parquet", "paths": [str(tmp_path / "*.parquet")]}
    run(write_corpus(tmp_path / "corpus.yaml", [source | {"keep_fields": ["court", "date"]}]), workers=1)
    corpus = write_corpus(tmp_path / "corpus.yaml", [source | {"keep_fields": ["court", "year"]}])
    with pytest.raises(UserError, match="no file has a column 'year': set keep_fields to some of court, date, text"):
        run(corpus, workers=1)


def test_every_name_that_a_stage_writes_is_refused():
    written = set()
    for path in Path(preprocessing.stages.__path__[0]).glob("*.py"):
        written |= set(re.findall(r'metadata(?:\[|\.setdefault\()"(\w+)"', path.read_text()))
    assert {"language", "contaminated_by", "measures"} <= written
    assert written <= set(config._OF_STAGES) and set(OWN_TO_STAGE) <= set(config._OF_STAGES)
