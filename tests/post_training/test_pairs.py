from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from mecellem.errors import UserError
from post_training.pairs import guess_columns, pair_set, read_pairs

ROWS = [
    {"id": 1, "query_text": "kanun nedir", "pos_text": "Kanun, meclisin koyduğu kuraldır.", "neg_text": "Deniz tuzludur."},
    {"id": 2, "query_text": "IŞIK hızı", "pos_text": "Işık saniyede 300.000 km yol alır.", "neg_text": "Kedi uyur."},
]


def write(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if path.suffix == ".gz":
        text = gzip.compress(text)
    if path.suffix == ".zst":
        text = zstandard.compress(text)
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_one_content_whatever_the_file(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        write(path, ROWS)
    pairs = read_pairs([path])
    assert pairs.table.column_names == ["anchor", "positive", "negative"] and pairs.negatives == 1
    assert pairs.columns == ("query_text", "pos_text", "neg_text")
    assert pairs.table.to_pylist()[1] == {"anchor": "IŞIK hızı", "positive": ROWS[1]["pos_text"], "negative": "Kedi uyur."}
    in_memory = pair_set([tuple(row[name] for name in pairs.columns) for row in ROWS], "memory")
    assert pairs.sha256 == in_memory.sha256
    assert read_pairs([path, path]).sha256 != pairs.sha256


def test_a_folder_is_its_files_and_named_columns_leave_negatives_out(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.jsonl", ROWS[:1])
    write(tmp_path / "data" / "b.jsonl", ROWS[1:])
    pairs = read_pairs([tmp_path], ["query_text", "pos_text"])
    assert len(pairs) == 2 and pairs.negatives == 0


def test_a_data_set_of_the_hub_is_read_by_its_id(tmp_path, monkeypatch):
    """The library's own loader on a real Parquet file, under a name as on the hub: there is no internet here."""
    import datasets

    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "train.parquet")
    real = datasets.load_dataset
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return real(
            "parquet", data_files={"train": str(tmp_path / "train.parquet")}, split=split, cache_dir=str(tmp_path / "c")
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    pairs = read_pairs(["newmindai/ms-marco-turkish-triplets"])
    assert asked == [("newmindai/ms-marco-turkish-triplets", "train")]
    assert pairs.table.to_pylist()[0]["anchor"] == "kanun nedir"


def test_a_data_set_that_cannot_be_had_is_told(monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"some/thing is no file here and could not be read.*no route.*--local-dir"):
        read_pairs(["some/thing"])


def test_rows_with_an_empty_text_are_left_out_and_counted(tmp_path):
    rows = [*ROWS, {**ROWS[0], "pos_text": " \n"}, {**ROWS[0], "neg_text": None}]
    pairs = read_pairs([write(tmp_path / "a.jsonl", rows)])
    assert len(pairs) == 2 and pairs.dropped == 2


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["anchor", "positive"], ("anchor", "positive")),
        (["Query", "Answer", "negative_2", "negative_10", "x"], ("Query", "Answer", "negative_2", "negative_10")),
        (["neg_text", "pos_text", "query_text"], ("query_text", "pos_text", "neg_text")),
    ],
)
def test_known_names(found, expected):
    assert guess_columns(found, "a") == expected


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (["soru", "cevap"], "no column of a known name holds the anchor: its columns are soru, cevap; name"),
        (["query", "text"], "holds the positive: its columns are query, text"),
        (["query", "question", "answer"], "query and question could each be the anchor"),
        (["query", "answer", "negative", "negative_1"], "negative and negative_1 could each be the negative"),
    ],
)
def test_names_that_say_too_little(found, sentence):
    with pytest.raises(UserError, match=sentence):
        guess_columns(found, "a")


@pytest.mark.parametrize(
    ("content", "columns", "sentence"),
    [
        (b"", (), "is empty"),
        (b'{"query": "a", "answer": "b"}\n{"query": "a"\n', (), "line 2: not JSON"),
        (b'{"query": "a", "answer": "b"}\n\n["a"]\n', (), "line 3: a JSON object is needed, not an array"),
        (b'{"query": "a", "answer": "b"}\n{"query": "a"}\n', (), 'line 2: "answer" is missing'),
        (b'{"query": "a", "answer": ["b"]}\n', (), 'line 1: "answer" must be a string, not an array'),
        (b'{"query": "a", "answer": "b"}\n', ("query", "neg"), r"no column neg \(--columns\): its columns are query, answer"),
        (b'{"query": "a", "answer": "b"}\n', ("query", "query"), "names query twice"),
        (b'{"query": "a", "answer": "b"}\n', ("query",), "at least two names"),
        (b'{"query": "a", "answer": ""}\n', (), "no pair whose texts are not empty"),
    ],
)
def test_bad_files_name_file_line_and_column(tmp_path, content, columns, sentence):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_pairs([tmp_path / "a.jsonl"], columns)


def test_bad_sources(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "a.csv").write_bytes(b"query,answer\n")
    (tmp_path / "none").mkdir()
    for source, sentence in [
        (tmp_path / "a.parquet", "not a Parquet file"),
        (tmp_path / "a.csv", "ends in .jsonl"),
        (tmp_path / "none", "holds no .jsonl"),
        (tmp_path / "b.jsonl", "no file or folder here"),
        ("notes", "nor the id of a data set"),
    ]:
        with pytest.raises(UserError, match=sentence):
            read_pairs([source])
    pq.write_table(pa.table({"query": ["a"], "answer": [1.5]}), tmp_path / "n.parquet")
    with pytest.raises(UserError, match="column answer must hold texts, and holds double"):
        read_pairs([tmp_path / "n.parquet"])
    with pytest.raises(UserError, match="--columns"):
        read_pairs([write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", [{"query": "a", "answer": "b"}])])


def test_equal_texts_have_equal_numbers_across_columns():
    numbers = pair_set([("a", "b"), ("c", "a"), ("b", "ğ")], "memory").text_numbers()
    assert numbers.shape == (3, 2)
    assert numbers[0, 0] == numbers[1, 1] and numbers[0, 1] == numbers[2, 0] and len(set(numbers.ravel().tolist())) == 4
    assert pair_set([("a", "ğğ")], "memory").characters().tolist() == [[1, 2]]
