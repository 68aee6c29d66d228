from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from mecellem.errors import UserError
from post_training.documents import read_split

LINE = '{"id":"a/1","source":"a","licence":"x","title":"İlk","text":"Iğdır ılık."}'


def write(folder: Path, data: bytes, split: str = "test") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{split}.jsonl.zst"
    path.write_bytes(data)
    return path


def pack(text: str | bytes) -> bytes:
    return zstandard.compress(text.encode() if isinstance(text, str) else text)


def test_reads_documents_of_several_frames(tmp_path):
    write(tmp_path, pack(LINE + "\n\n" + LINE[:-1]) + pack(',"definitions":["d"],"examples":null}\n'))
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
        (pack(LINE + "\n{not json\n"), "line 2 is not JSON"),
        (pack(LINE.encode() + b'\n{"id":"\xff"}\n'), "line 2 is not JSON"),
        (pack(LINE + '\n{"id":"b"}\n'), "line 2 is not a document"),
        (pack(LINE + "\n[1]\n"), "line 2 is not a document"),
        (b"plain text", "is damaged"),
        (pack(LINE * 1000)[:-4], "cut short"),
    ],
)
def test_bad_files_are_named(tmp_path, data, sentence):
    path = write(tmp_path, data)
    with pytest.raises(UserError, match=sentence) as error:
        read_split(tmp_path, "test")
    assert str(path) in str(error.value) and "corpus fetch" in str(error.value)


def test_missing_folder_and_split(tmp_path):
    with pytest.raises(UserError, match="not a corpus folder"):
        read_split(tmp_path / "none", "test")
    with pytest.raises(UserError, match=r"train\.jsonl\.zst is missing"):
        read_split(tmp_path, "train")
