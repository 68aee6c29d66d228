"""The YAML and CSV files: what comes with the package, and what is refused with its line."""

from __future__ import annotations

import math

import pytest

from evaluation.efficiency import definitions, table
from evaluation.efficiency.definitions import read_definitions
from evaluation.efficiency.table import read_table
from mecellem.errors import UserError


def test_the_published_table_has_an_origin_for_every_number():
    found = read_table(table.DEFAULT)
    assert [row.name for row in found.rows] == [
        "embeddinggemma-300m", "bge-m3", "bge-m3-stsb", "Mursit-Large-TR-Retrieval", "Mursit-Base-TR-Retrieval",
        "Mursit-Embed-Qwen3-4B-TR", "TabiBERT",
    ]  # fmt: skip
    for row in found.rows:
        assert all(figure.origin and math.isfinite(figure.value) for figure in row.figures.values())
    reported = {row.name: row.reported.value for row in found.rows if row.reported}
    assert reported == {"embeddinggemma-300m": 100, "bge-m3": 99.54, "bge-m3-stsb": 94.38}
    assert any("92.36" in note for note in found.notes)


def test_the_definitions_that_come_with_the_package():
    found = {item.name: item for item in read_definitions()}
    assert found["2 retrieval + legal"].origin.startswith("unpublished, fitted to one equation")
    assert found["2 retrieval + legal"].formula_text() == "100 x Q / best Q, Q = (2 retrieval + legal) / 3"
    assert found["size penalty"].formula_text().startswith("100 x Q / best Q - 2 x log2(parameters / best) - 2 x log2(")
    assert "(documents per second / best)^1 x (best / memory)^1" in found["deployment"].formula_text()
    assert {item.formula for item in found.values()} == {"ratio", "geometric", "penalty"}


ONE = "definitions:\n  - name: a\n    formula: ratio\n    quality: {mean: 1}\n    origin: me\n"
BAD_DEFINITIONS = {
    "": "is empty",
    "definitions: []": "line 1: `definitions` is .*must not be empty",
    ONE.replace("formula", "formular"): r"line 3: unknown key `definitions\[0\] \(a\).formular`: did you mean `formula`",
    ONE.replace("ratio", "product"): "line 3: .*'product': it must be 'ratio', 'geometric' or 'penalty'",
    ONE.replace("mean", "meen"): "line 4: .*'meen': it must be 'mean', 'retrieval' or 'legal'",
    ONE.replace("1}", "0}"): "the weight of mean is 0",
    ONE.replace("1}", ".inf}"): "the weight of mean is inf",
    ONE.replace("1}", "one}"): "line 4: .*must be a number",
    ONE.replace("{mean: 1}", "{}"): "needs at least one quality",
    ONE.replace("    origin: me\n", ""): "`definitions.*origin` is missing",
    ONE + "    cost: {parameters: 1}\n": "`ratio` is of quality alone",
    ONE.replace("ratio", "penalty"): "`penalty` weighs quality against costs",
    ONE + ONE.partition("\n")[2]: "line 6: the definition 'a' stands twice",
    ONE + "weights: 3\n": "line 6: unknown key `weights`",
    ONE + "    name: b\n": "line 6: the key `name` stands in line 2 already",
    "definitions: [": "not YAML",
}


@pytest.mark.parametrize("content", BAD_DEFINITIONS)
def test_bad_definitions(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=BAD_DEFINITIONS[content]):
        read_definitions(path)


HEAD = "benchmark: b\norigin: o\nrows:\n"
ROW = "  - name: a\n    mean: {value: 50, origin: o}\n"
BAD_TABLES = {
    HEAD + ROW.replace("mean", "meen"): r"line 5: unknown key `rows\[0\] \(a\).meen`: did you mean `mean`",
    HEAD + ROW.replace("origin: o", "source: o"): r"unknown key `rows.*source`: the keys are value, origin",
    HEAD + ROW.replace(", origin: o", ""): "origin` is missing",
    HEAD + ROW.replace("50", ".nan"): "line 5: .*must be a finite number",
    HEAD + ROW.replace("50", "101"): "mean is 101: it must be a percentage",
    HEAD + ROW.replace("50", "'many'"): "must be a number",
    HEAD + ROW + "    parameters: {value: 0, origin: o}\n": "parameters is 0: it must be above 0; leave it out",
    HEAD + ROW + ROW: "line 6: a stands in line 4 already",
    HEAD + ROW + "    index_bytes: {value: 3, origin: o}\n": "unknown key `rows.*index_bytes`",
    HEAD.replace("rows:\n", "rows: []\n"): "must not be empty",
}


@pytest.mark.parametrize("content", BAD_TABLES)
def test_bad_yaml_tables(tmp_path, content):
    path = tmp_path / "table.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=BAD_TABLES[content]):
        read_table(path)


def test_csv_tables(tmp_path):
    path = tmp_path / "my-benchmark.csv"
    text = 'name,mean,legal,parameters,reported,origin\n"a, the first",50,,1e6,,card\nb, 60.5 ,40,,99,card\n'
    path.write_text(text, encoding="utf-8-sig")
    found = read_table(path)
    assert found.benchmark == "my-benchmark"
    first, second = found.rows
    assert first.name == "a, the first" and {name: figure.value for name, figure in first.figures.items()} == {
        "mean": 50, "parameters": 1e6,
    }  # fmt: skip
    assert second.value("mean") == 60.5 and second.value("parameters") is None and second.reported.value == 99
    assert second.figures["legal"].origin == "card"


BAD_CSV = {
    "name,origin,speed\na,o,3\n": "line 1: unknown column 'speed'",
    "name,mean\na,3\n": "line 1: the column 'origin' is missing",
    "name,origin,mean\na,o,fast\n": "line 2: mean is 'fast': it must be a number, or empty",
    "name,origin,mean\na,o,nan\n": "line 2: mean is nan: leave it empty",
    "name,origin,mean\na,o,-1\n": "line 2: mean is -1: it must be a percentage",
    "name,origin,mean\na,o,3\n,o,3\n": "line 3: the cell 'name' is empty",
    "name,origin,mean\na,o\n": "line 2: the line has not as many cells",
    "name,origin,mean\na,o,3,4\n": "line 2: the line has not as many cells",
    "name,origin,mean\na,o,3\na,o,4\n": "line 3: a stands in line 2 already",
    "name,origin,mean\n": "has no row",
    "": "line 1: the column 'name' is missing",
}


@pytest.mark.parametrize("content", BAD_CSV)
def test_bad_csv_tables(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=BAD_CSV[content]):
        read_table(path)


def test_paths_that_are_no_tables(tmp_path):
    with pytest.raises(UserError, match=r"ends in \.yaml or \.csv"):
        read_table(tmp_path / "table.xlsx")
    with pytest.raises(UserError, match="is not a file"):
        read_table(tmp_path / "table.csv")
    with pytest.raises(UserError, match="is missing"):
        read_definitions(tmp_path / "none.yaml")
    assert definitions.DEFAULT.is_file()
