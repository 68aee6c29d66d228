"""Text in other encodings than UTF-8: `text: {encoding: ...}`."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_items import items, planned, read_tasks

from mecellem.errors import UserError
from preprocessing.pipeline.config import TextOptions, read_corpus
from preprocessing.sources.found import Problem

TURKISH = "Şu ığdır ÇAĞRISI üzerine\nödenen İŞÇİ alacağı"
ENCODINGS = ["windows-1254", "iso-8859-9", "utf-16", "utf-16-be", "utf-32", "cp857", "utf-8-sig", "gb18030"]


@pytest.mark.parametrize("documents", ["file", "blank_line"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_is_that_of_its_encoding(tmp_path, encoding, documents):
    path = tmp_path / "a.txt"
    path.write_bytes(f"{TURKISH}\r\n\r\n{TURKISH}".encode(encoding))
    options = TextOptions(documents=documents, encoding=encoding).model_dump()
    found = [(item.text, item.metadata["origin"]) for item in items(path, "text", options=options)]
    whole = [(f"{TURKISH}\n\n{TURKISH}", f"{path}:1")]
    assert found == (whole if documents == "file" else [(TURKISH, f"{path}:1"), (TURKISH, f"{path}:4")])


@given(
    st.sampled_from(ENCODINGS),
    st.lists(st.text("aışĞ\n", max_size=12).filter(str.strip), min_size=1, max_size=8),
    st.integers(min_value=1, max_value=40),
)
def test_cut_anywhere_it_gives_what_utf_8_gives(tmp_path_factory, encoding, contents, shard_size):
    path, same = (tmp_path_factory.mktemp("text") / name for name in ("a.txt", "b.txt"))
    text = "\n\n".join(contents)
    path.write_bytes(text.encode(encoding))
    same.write_bytes(text.encode())
    wide = {"documents": "blank_line", "encoding": encoding}
    found = [item.text for task in read_tasks(path, "text", shard_size, options=wide) for item in task]
    assert found == [item.text for item in items(same, "text", options={"documents": "blank_line"})]


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("utf-8", "bir\niki \udcfd\n\nüç".encode(errors="surrogateescape")),
        ("windows-1254", "bir\niki ".encode("windows-1254") + b"\x81\n\n" + "üç".encode("windows-1254")),
        ("utf-16-le", "bir\niki ".encode("utf-16-le") + b"\x00\xd8" + "\n\nüç".encode("utf-16-le")),
    ],
)
def test_what_is_not_in_the_encoding_is_located_and_the_option_named(tmp_path, encoding, data):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    problem, document = items(path, "text", options={"documents": "blank_line", "encoding": encoding})
    assert isinstance(problem, Problem)
    assert (problem.number, problem.reason) == (2, "not_utf8")
    assert f"its `text: encoding` is {encoding}: set the one that the file has" in problem.detail
    assert document.text == "üç"


def test_a_large_file_of_wide_letters_is_one_task(tmp_path):
    path = tmp_path / "a.txt"
    for encoding, is_one in (("utf-16", True), ("windows-1254", False)):
        path.write_bytes(("bir\n\n" * 100).encode(encoding))
        tasks, _ = planned(path, "text", 100, options={"documents": "blank_line", "encoding": encoding})
        assert (len(tasks) == 1) is is_one


def test_behind_damage_wide_letters_are_not_guessed(tmp_path):
    path = tmp_path / "a.txt.gz"
    members = [gzip.compress(f"{n} {TURKISH}\n\n".encode("utf-16-be") * 3000) for n in range(3)]
    broken = bytearray(b"".join(members))
    broken[len(members[0]) + len(members[1]) // 2] ^= 0xFF
    path.write_bytes(bytes(broken))
    found = items(path, "text", options={"documents": "blank_line", "encoding": "utf-16-be"})
    assert isinstance(found[-1], Problem) and found[-1].reason == "damaged_file"
    assert {item.text[2:] for item in found[:3000]} == {TURKISH}


@pytest.mark.parametrize("wrong", ["windows-1245", "hex", "", "a\\0b"])
def test_a_name_that_is_no_encoding_is_refused(tmp_path, wrong):
    path = tmp_path / "corpus.yaml"
    path.write_text(
        f'out: out\nsources:\n  - name: laws\n    kind: text\n    paths: [a.txt]\n    text: {{encoding: "{wrong}"}}\n'
    )
    with pytest.raises(UserError, match=r"line 6: .*encoding`: .* is no encoding that Python has: write its name, such as win"):
        read_corpus(path)


def test_spellings_of_one_encoding_are_one_setting():
    assert TextOptions(encoding="UTF8") == TextOptions()
    assert TextOptions(encoding="Latin5") == TextOptions(encoding="iso-8859-9")
