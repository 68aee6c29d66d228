from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from mecellem.errors import UserError
from preprocessing.corpus.document import Document
from preprocessing.corpus.read_split import read_split, split_path

LINE = '{"id":"a/1","source":"a","licence":"x","title":"İlk","text":"Iğdır ılık."}'


def write(folder: Path, data: bytes, split: str = "test") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{split}.jsonl.zst"
    path.write_bytes(data)
    return path


def pack(text: str | bytes) -> bytes:
    return zstandard.compress(text.encode() if isinstance(text, str) else text)


def test_reads_documents_of_several_frames(tmp_path):
    write(tmp_path, pack(LINE + "\n\n" + LINE[:-1].replace("a/1", "a/2")) + pack(',"definitions":["d"],"examples":null}\n'))
    first, second = read_split(tmp_path, "test")
    assert first.text == "Iğdır ılık." and first.definitions == ()
    assert second.definitions == ("d",) and second.examples == ()


def test_reads_the_real_sample(sample_corpus):
    documents = read_split(sample_corpus, "test")
    assert {"ataturk", "kenet"} <= {document.source for document in documents}
    assert len({document.id for document in documents}) == len(documents)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (pack(""), "has no documents"),
        (pack("\n\n"), "has no documents"),
        (pack(LINE + "\n{not json\n"), "line 2: not JSON"),
        (pack(LINE.encode() + b'\n{"id":"\xff"}\n'), "line 2: not UTF-8"),
        (pack(LINE + '\n{"id":"b"}\n'), 'line 2: the record has no "text"'),
        (pack(LINE + "\n[1]\n"), "line 2: a JSON object"),
        (pack(LINE + '\n{"text":"b","title":1}'), '"title" must be a string, not a number'),
        (pack(LINE + '\n{"text":"b","examples":"e"}'), '"examples" must be an array of strings, not a string'),
        (pack(f"{LINE}\n\n{LINE}\n"), "line 3: line 1 has the same id 'a/1'"),
        (b"plain text", "is cut or broken"),
        (pack(LINE * 1000)[:-4], "is cut or broken"),
    ],
)
def test_bad_files_are_named(tmp_path, data, sentence):
    path = write(tmp_path, data)
    with pytest.raises(UserError, match=sentence) as error:
        read_split(tmp_path, "test")
    assert str(path) in str(error.value)


def test_missing_folder_and_split(tmp_path):
    with pytest.raises(UserError, match="not a corpus folder"):
        read_split(tmp_path / "none", "test")
    with pytest.raises(UserError, match=r"train\.jsonl\.zst .* is missing"):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_a_text_is_all_that_a_line_needs(tmp_path, suffix):
    compress = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": pack}[suffix]
    lines = b'{"text":"bir"}\n\n{"id":7,"text":"iki","title":null}\n'
    (tmp_path / f"test{suffix}").write_bytes(compress(lines))
    assert read_split(tmp_path, "test") == [
        Document("1", "corpus", "unknown", "", "bir"),
        Document("7", "corpus", "unknown", "", "iki"),
    ]


def test_two_files_for_one_split_are_refused(tmp_path):
    (tmp_path / "test.jsonl").write_text(LINE)
    write(tmp_path, pack(LINE))
    with pytest.raises(UserError, match=r"has test\.jsonl and test\.jsonl\.zst: leave one"):
        split_path(tmp_path, "test")
