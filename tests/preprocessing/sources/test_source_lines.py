import gzip

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.sources.blocks import DamagedError, blocks
from preprocessing.sources.lines import LongLine, split_lines

PIECES = st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"a\n", b"\n\n", b"bc"]), max_size=12)


@given(PIECES, st.integers(min_value=0, max_value=30))
def test_lines_are_those_of_the_whole_and_long_ones_are_measured(pieces, longest):
    whole = b"".join(pieces)
    wanted = whole.split(b"\n")
    if wanted[-1] == b"":
        wanted.pop()
    found = list(split_lines(pieces, longest))
    assert len(found) == len(wanted)
    for got, line in zip(found, wanted, strict=True):
        if len(line) > longest:
            assert isinstance(got, LongLine) and got.length == len(line)
            assert line.startswith(got.sample) and len(got.sample) > 0
        else:
            assert got == line


def content(path, **bounds):
    got = bytearray()
    try:
        for block in blocks(path, **bounds):
            got += block
    except DamagedError as error:
        return bytes(got), str(error)
    return bytes(got), None


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_members_follow_each_other_and_a_cut_file_gives_what_stands_before(tmp_path, suffix, pack):
    path, text = tmp_path / f"x.jsonl{suffix}", bytes(range(256)) * 40_000
    path.write_bytes(pack(text) + pack(b"more"))
    assert content(path) == (text + b"more", None)
    packed = pack(text)
    path.write_bytes(packed + pack(b"more")[:-5])
    got, damage = content(path)
    assert got.startswith(text) and damage is not None
    path.write_bytes(pack(b"first") + b"garbage, not a member")
    got, damage = content(path)
    assert got == b"first" and damage is not None


def test_a_gzip_file_may_end_in_zeros_as_tapes_leave_them(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"text") + bytes(512))
    assert content(path) == (b"text", None)


def test_a_range_of_a_file_that_shrank_is_damage(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"0123456789")
    assert content(path, start=2, end=6) == (b"2345", None)
    got, damage = content(path, start=4, end=20)
    assert got == b"456789" and "10 bytes early" in damage
