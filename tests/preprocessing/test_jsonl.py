import gzip
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mecellem.errors import UserError
from preprocessing import jsonl

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=12)


def lines_of(texts):
    return b"".join(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n" for text in texts)


def compress(suffix, data):
    match suffix:
        case ".jsonl":
            return data
        case ".jsonl.gz":
            return gzip.compress(data)
        case ".jsonl.zst":
            return zstandard.ZstdCompressor().compress(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("jsonl")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
@given(parts=st.lists(TEXTS, min_size=1, max_size=3), block=st.integers(1, 50))
def test_every_text_comes_back_whatever_the_blocks_and_frames(folder, suffix, parts, block):
    path = folder / f"x{suffix}"
    path.write_bytes(b"".join(compress(suffix, lines_of(texts)) for texts in parts))  # several gzip members, zstd frames
    read = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_BLOCK", block)
        records = [record.text for record in jsonl.read_records(path, progress=read.append)]
    assert records == [text for texts in parts for text in texts]
    assert sum(read) <= path.stat().st_size


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
@given(texts=TEXTS, cut=st.floats(0, 1, exclude_max=True))
def test_a_compressed_file_cut_anywhere_is_refused(folder, suffix, texts, cut):
    data = compress(suffix, lines_of([*texts, "son"]))
    path = folder / f"cut{suffix}"
    path.write_bytes(data[: max(1, int(len(data) * cut))])
    with pytest.raises(UserError, match="cut or broken"):
        list(jsonl.read_records(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', "line 3: not JSON"),
        (b'{"text": "\xff"}', r"line 3: not UTF-8 \(byte 10 of the line\)"),
        (b'{"text": "\\ud800"}', "line 3: not JSON"),
        (b'["text"]', "line 3: a JSON object .* not an array"),
        (b'{"title": "a"}', 'line 3: the record has no "text"'),
        (b'{"text": 3}', 'line 3: "text" must be a string, not a number'),
        (b'{"text": null}', "not null"),
        (b'{"text": "a", "licence": true}', '"licence" must be a string, not true or false'),
    ],
)
def test_a_bad_line_is_named(folder, line, message):
    path = folder / "bad.jsonl"
    path.write_bytes(b'{"text": "iyi"}\n\n' + line + b'\n{"text": "sonra"}\n')
    with pytest.raises(UserError, match=message) as caught:
        list(jsonl.read_records(path))
    assert str(path) in str(caught.value)


def test_source_and_licence_are_kept_or_said_to_be_unknown(folder):
    path = folder / "own.jsonl"
    path.write_text('{"text": "a", "source": "s", "licence": "l", "more": [1]}\n{"text": "b"}', encoding="utf-8")
    assert list(jsonl.read_records(path)) == [jsonl.Record("a", "s", "l"), jsonl.Record("b", "own.jsonl", "unknown")]


def test_inputs_are_checked_before_any_work(folder):
    (folder / "text.txt").write_text("x")
    for paths, message in [
        ([], "--input names no file"),
        ([folder / "none.jsonl"], "is not a file"),
        ([folder], "is not a file"),
        ([folder / "text.txt"], "ends in .jsonl"),
    ]:
        with pytest.raises(UserError, match=message):
            jsonl.check_inputs(paths, "--input")


def test_the_fingerprint_is_of_the_content_and_its_order(folder):
    one, two, copy = (folder / name for name in ("1.jsonl", "2.jsonl", "copy.jsonl"))
    one.write_text("1"), two.write_text("2"), copy.write_text("1")
    assert jsonl.fingerprint([one, two]) == jsonl.fingerprint([copy, two]) != jsonl.fingerprint([two, one])


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
@given(parts=st.lists(TEXTS, min_size=1, max_size=3), size=st.integers(1, 200), block=st.integers(1, 50), end=st.booleans())
def test_blocks_are_whole_lines_and_what_was_seen_is_the_file(folder, suffix, parts, size, block, end):
    path = folder / f"blocks{suffix}"
    data = b"".join(lines_of(texts) for texts in parts) + (b"" if end else b'{"text": "son"}')
    path.write_bytes(compress(suffix, data))
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_BLOCK", block)
        blocks = list(jsonl.read_line_blocks(path, size, seen.append))
    assert b"".join(block.data for block in blocks) == data
    assert b"".join(seen) == path.read_bytes()
    assert all(block.data.endswith(b"\n") for block in blocks[:-1])
    first = 1
    for part in blocks:
        assert part.first_line == first
        first += part.data.count(b"\n")
    texts = [record.text for part in blocks for record in jsonl.records_of(part)]
    assert texts == [record.text for record in jsonl.read_records(path)]


def test_a_bad_line_of_a_later_block_has_its_number(folder):
    path = folder / "late.jsonl"
    path.write_bytes(b'{"text": "iyi"}\n' * 1000 + b'{"text": 5}\n')
    with pytest.raises(UserError, match='line 1001: "text" must be a string'):
        for block in jsonl.read_line_blocks(path, 100):
            list(jsonl.records_of(block))
