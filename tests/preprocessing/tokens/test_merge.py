import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import mecellem, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.manifest import read_manifest, verify_files, write_manifest
from preprocessing.tokens import merge as merging
from preprocessing.tokens.indexed import open_index, write_index
from preprocessing.tokens.merge import merge_corpora, merged_manifest
from preprocessing.tokens.tokenize import shard_prefix, shards_of_task, tokenize, tokenize_corpus

KINDS = ("bin", "idx", "manifest.json")
WORDS = st.sampled_from(["", "a", "kara kutu", "İstanbul'da ığdır", "[SEP]", "ş" * 50])
RECORD = st.fixed_dictionaries({"text": WORDS, "source": st.sampled_from("ab"), "licence": st.sampled_from("xy")})


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def contents(prefix):
    return [Path(f"{prefix}.{kind}").read_bytes() for kind in KINDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("merge")


@pytest.fixture
def shards(sample_tokenizer, tmp_path):
    sources = [
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": f"{name} {n}", "source": name[0]} for n in range(300)])
        for name in ("a1", "a2", "b")
    ]
    prefixes = [tmp_path / "shards" / path.stem for path in sources]
    for path, prefix in zip(sources, prefixes, strict=True):
        tokenize_corpus([path], sample_tokenizer, prefix)
    tokenize_corpus(sources, sample_tokenizer, tmp_path / "one" / "x")
    return prefixes


@settings(max_examples=25)
@given(
    parts=st.lists(st.lists(RECORD, max_size=6), min_size=1, max_size=4).filter(lambda p: any(r["text"] for q in p for r in q))
)
def test_shards_merged_are_byte_for_byte_one_run(folder, sample_tokenizer, parts):
    sources = [write_jsonl(folder / f"{n}.jsonl", records) for n, records in enumerate(parts)]
    out = folder / "one" / "x"
    tokenize_corpus(sources, sample_tokenizer, out, replace=True)
    tokenize(sources, sample_tokenizer, folder / "shards" / "x", shards=True, replace=True)
    done = [shard_prefix(folder / "shards" / "x", number) for number in range(len(sources))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preprocessing.tokens.indexed._CHUNK", 2)
        patch.setattr(merging, "_HASHED_AT_ONCE", 7)
        merge_corpora(done, folder / "merged" / "x", replace=True)
    assert contents(folder / "merged" / "x") == contents(out)


def test_tasks_of_an_array_make_the_shards_that_one_command_makes(shards, sample_tokenizer, tmp_path):
    sources = [tmp_path / f"{name}.jsonl" for name in ("a1", "a2", "b")]
    flags = ["prepare", "tokenize", "--input", *sources, "--tokenizer", sample_tokenizer, "--shards"]
    for task in range(2):
        done = mecellem(*flags, "--out", tmp_path / "array" / "s", "--task", f"{task}/2", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    made = [tmp_path / "array" / f"s_{number:05d}" for number in range(3)]
    assert sorted((tmp_path / "array").iterdir()) == sorted(Path(f"{prefix}.{kind}") for prefix in made for kind in KINDS)
    merge = ["prepare", "merge", "--input", *(f"{prefix}.idx" for prefix in made), "--out", tmp_path / "whole" / "x"]
    done = mecellem(*merge, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 corpora, 900 documents" in done.stdout
    written = ", ".join(str(tmp_path / "whole" / f"x.{kind}") for kind in ("bin", "idx", "manifest.json"))
    assert done.stdout.count(f"wrote   {written}\n") == 1
    assert contents(tmp_path / "whole" / "x") == contents(tmp_path / "one" / "x")
    stamp = (tmp_path / "whole" / "x.bin").stat().st_mtime_ns
    again = mecellem(*merge, cwd=tmp_path).stdout
    assert "nothing to do" in again and "wrote" not in again
    assert (tmp_path / "whole" / "x.bin").stat().st_mtime_ns == stamp


def test_a_shard_whose_task_has_not_run_is_missed(shards, sample_tokenizer, tmp_path):
    sources = [tmp_path / f"{name}.jsonl" for name in ("a1", "a2", "b")]
    flags = ["--tokenizer", sample_tokenizer, "--shards", "--out", tmp_path / "array" / "s"]
    done = mecellem("prepare", "tokenize", "--input", *sources, *flags, "--task", "0/2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    there = [tmp_path / "array" / f"s_{number:05d}" for number in (0, 2)]
    with pytest.raises(UserError, match=r"1 of the 3 shards of .*/array/s are not in --input \(s_00001\): .* add --partial"):
        merge_corpora(there, tmp_path / "whole" / "x")
    manifest, _ = merge_corpora(there, tmp_path / "whole" / "x", partial=True)
    assert manifest.shard is None and len(manifest.inputs) == 2
    with pytest.raises(UserError, match=r"s_00000 stands twice in --input"):
        merge_corpora([there[0], *there], tmp_path / "twice" / "x", partial=True)
    done = mecellem("prepare", "tokenize", "--input", *sources, *flags, "--task", "8/9", cwd=tmp_path)
    assert "no shard is left for --task 8/9: there are 3 inputs" in done.stdout and done.returncode == 0


@pytest.mark.parametrize(("task", "numbers"), [("0/1", [0, 1, 2, 3, 4]), ("1/3", [1, 4]), ("4/5", [4]), ("8/9", [])])
def test_tasks_share_the_shards(task, numbers):
    assert shards_of_task(task, 5) == numbers


@pytest.mark.parametrize("task", ["3/3", "1", "a/b", "-1/2", "1/0", "1/2/3"])
def test_a_task_that_is_none_is_refused(task):
    with pytest.raises(UserError, match="two numbers like 3/16"):
        shards_of_task(task, 5)


@pytest.mark.parametrize("error", [errno.EXDEV, errno.ENOSYS, None])
def test_a_system_that_does_not_copy_is_no_obstacle(shards, tmp_path, monkeypatch, error):
    calls = []
    copy = os.copy_file_range

    def stopping(source, target, count):
        calls.append(count)
        if len(calls) == 2:  # some of the first file is there already
            raise OSError(error, os.strerror(error))
        return copy(source, target, min(count, 100))

    if error is None:
        monkeypatch.delattr(os, "copy_file_range")
    else:
        monkeypatch.setattr(os, "copy_file_range", stopping)
    merge_corpora(shards, tmp_path / "merged" / "x")
    assert contents(tmp_path / "merged" / "x") == contents(tmp_path / "one" / "x")


def damage_last_byte(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_a_shard_that_was_changed_is_named_and_nothing_is_left(shards, tmp_path, kind):
    damage_last_byte(Path(f"{shards[1]}.{kind}"))
    with pytest.raises(UserError, match=rf"a2\.{kind}: SHA-256 differs"):
        merge_corpora(shards, tmp_path / "merged" / "x")
    assert list((tmp_path / "merged").iterdir() if (tmp_path / "merged").exists() else []) == []


def change(prefix, **update):
    write_manifest(prefix, read_manifest(prefix).model_copy(update=update))


def test_shards_that_do_not_fit_are_refused_and_both_are_named(shards, tmp_path):
    first, second, _ = (read_manifest(prefix) for prefix in shards)
    both = r"a1\.manifest\.json and .*a2\.manifest\.json"
    change(shards[1], tokenizer=second.tokenizer.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(UserError, match=f"{both} were written with different tokenizers .*SHA-256 000000000000"):
        merge_corpora(shards, tmp_path / "x")
    change(shards[1], tokenizer=second.tokenizer.model_copy(update={"eod_id": 1}))
    with pytest.raises(UserError, match=f"{both} were written with different tokenizers or ends"):
        merge_corpora(shards, tmp_path / "x")
    change(shards[1], tokenizer=first.tokenizer, versions=second.versions | {"tokenizers": "0.1"})
    with pytest.raises(UserError, match=f"{both} were written with different versions of tokenizers .* --replace"):
        merge_corpora(shards, tmp_path / "x")


def test_int32_and_uint16_are_not_mixed(shards, sample_tokenizer, tmp_path):
    idx = Path(f"{shards[1]}.idx")
    data = bytearray(idx.read_bytes())
    data[17] = 4  # the code of int32
    idx.write_bytes(data)
    manifest = read_manifest(shards[1])
    entry = manifest.files["a2.idx"].model_copy(update={"sha256": sha256_of(idx)})
    bin_path = Path(f"{shards[1]}.bin")
    bin_path.write_bytes(np.fromfile(bin_path, "<u2").astype("<i4").tobytes())
    wide = manifest.files["a2.bin"].model_copy(update={"bytes": bin_path.stat().st_size, "sha256": sha256_of(bin_path)})
    change(shards[1], dtype="int32", files={"a2.bin": wide, "a2.idx": entry})
    with pytest.raises(UserError, match=r"a1\.manifest.* and .*a2\.manifest.* different types \(uint16, int32\)"):
        merge_corpora(shards, tmp_path / "x")


def test_other_mistakes_are_one_sentence(shards, tmp_path):
    def merge(*inputs, out="merged/x"):
        return refusal(mecellem("prepare", "merge", "--input", *inputs, "--out", tmp_path / out, cwd=tmp_path))

    assert "none.manifest.json is missing" in merge(tmp_path / "none")
    assert "is one of --input as well" in merge(*shards, out="shards/b")
    Path(f"{shards[0]}.bin").unlink()
    assert "a1.bin is missing" in merge(*shards)
    change(shards[1], inputs=[])
    assert "does not list the files it was made from" in merge(*shards[1:])
    idx = Path(f"{shards[2]}.idx")
    idx.write_bytes(b"\0" * idx.stat().st_size)
    assert "b.idx is not an index" in merge(shards[2])
    assert not (tmp_path / "merged").exists()


def test_a_full_disk_is_one_sentence_and_the_older_corpus_stays(shards, tmp_path):
    merge_corpora(shards[:1], tmp_path / "merged" / "x")
    before = contents(tmp_path / "merged" / "x")
    flags = ["prepare", "merge", "--input", *shards, "--out", tmp_path / "merged" / "x"]
    assert "add --replace" in refusal(mecellem(*flags, cwd=tmp_path))
    assert "x.bin: the disk is full" in refusal(mecellem(*flags, "--replace", cwd=tmp_path, file_size_limit=4096))
    assert contents(tmp_path / "merged" / "x") == before


DIE_AT_RENAME = """
import os, signal, sys
from pathlib import Path
from preprocessing.tokens.merge import merge_corpora
number = int(sys.argv[1])
rename, calls = os.replace, 0
def dying(source, target):
    global calls
    calls += 1
    if calls == number: os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = dying
merge_corpora([Path(path) for path in sys.argv[3:]], Path(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [1, 2, 3, 4])  # the note, .bin, .idx, manifest
def test_killed_before_each_rename_the_same_command_goes_on(shards, tmp_path, number):
    out = tmp_path / "merged" / "x"
    arguments = [str(number), str(out), *map(str, shards)]
    done = subprocess.run([sys.executable, "-c", DIE_AT_RENAME, *arguments], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="is missing"):
        read_manifest(out)
    if number == 3:  # a .bin of this merge, which another one may not overwrite unasked
        with pytest.raises(UserError, match=r"x\.bin exists already"):
            merge_corpora(shards[:2], out)
    _, written = merge_corpora(shards, out)
    assert written == (number < 4)  # all files were there: only their manifest was missing
    assert contents(out) == contents(tmp_path / "one" / "x")
    assert len(list(out.parent.iterdir())) == 3


def test_a_thousand_shards_take_ten_times_as_long_as_a_hundred(shards):
    manifest = read_manifest(shards[0])
    ranges = [
        part.model_copy(update={"first": n, "last": n + 1, "source": f"{n}"}) for n, part in enumerate(manifest.sources * 50)
    ]
    manifest = manifest.model_copy(update={"sources": ranges, "documents": 50})

    def seconds(count):
        best = []
        for _ in range(3):
            started = time.process_time()
            merged = merged_manifest([manifest] * count)
            best.append(time.process_time() - started)
        assert merged.documents == 50 * count
        assert (len(merged.sources), len(merged.inputs), len(merged.engines)) == (50 * count, count, 1)
        assert merged.sources[-1].last == 50 * count
        return min(best)

    few = seconds(100)
    assert seconds(1000) < 30 * few  # a quadratic step would make it a hundred times


def synthetic_index(path, lengths, documents_without=0):
    """An .idx, as Megatron lays it out, of documents whose .bin no disk would hold."""
    sizes = np.array(lengths, "<i8") * 2
    head = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, len(lengths), len(lengths) + documents_without + 1)
    bounds = [*range(len(lengths) + 1), *[len(lengths)] * documents_without]
    tables = (np.array(lengths, "<i4"), np.cumsum(sizes) - sizes, np.array(bounds, "<i8"))
    path.write_bytes(head + b"".join(table.tobytes() for table in tables))


@given(
    parts=st.lists(
        st.tuples(st.lists(st.integers(2**30, 2**31 - 1), min_size=3, max_size=9), st.integers(0, 2)), min_size=8, max_size=30
    )
)
def test_offsets_and_bounds_beyond_two_to_the_31_and_40_billion_tokens(folder, parts):
    """Shards of more than 2^31 tokens each, together more than 2^32: the arithmetic alone, as Python's integers do it."""
    indexes = []
    for number, (lengths, empty) in enumerate(parts):
        path = folder / f"{number}.idx"
        synthetic_index(path, lengths, empty)
        indexes.append(open_index(path))
    with open(folder / "big.idx", "wb") as out:
        documents, sequences = (sum(getattr(index, name) for index in indexes) for name in ("documents", "sequences"))
        write_index(out, indexes[0].dtype, sequences, documents, lambda: merging._all_lengths(indexes))
    data = (folder / "big.idx").read_bytes()
    whole = [length for lengths, _ in parts for length in lengths]
    assert sum(whole) > 2**34
    offsets = [2 * sum(whole[:n]) for n in range(len(whole))]
    bounds, last = [0], 0
    for lengths, empty in parts:
        bounds += range(last + 1, last + len(lengths) + 1)
        last += len(lengths)
        bounds += [last] * empty
    expected = struct.pack(f"<{len(whole)}i{len(whole)}q{len(bounds)}q", *whole, *offsets, *bounds)
    assert data[34:] == expected
    assert struct.unpack("<9sQBQQ", data[:34]) == (b"MMIDIDX\x00\x00", 1, 8, len(whole), len(bounds))


def test_more_than_40_billion_tokens_in_all(folder):
    synthetic_index(folder / "shard.idx", [2**31 - 1] * 2)
    index = open_index(folder / "shard.idx")
    with open(folder / "big.idx", "wb") as out:
        write_index(out, index.dtype, 2000, 2000, lambda: merging._all_lengths([index] * 1000))
    data = (folder / "big.idx").read_bytes()
    (last,) = struct.unpack_from("<q", data, 34 + 4 * 2000 + 8 * 1999)
    assert last == 2 * 1999 * (2**31 - 1)
    assert 2000 * (2**31 - 1) > 40_000_000_000


def test_megatron_reads_what_was_merged(shards, tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    manifest, _ = merge_corpora(shards, tmp_path / "merged" / "x")
    verify_files(tmp_path / "merged" / "x", manifest)
    whole = IndexedDataset(str(tmp_path / "merged" / "x"))
    parts = [IndexedDataset(str(prefix)) for prefix in shards]
    assert [whole[i].tolist() for i in range(len(whole))] == [part[i].tolist() for part in parts for i in range(len(part))]
    assert [(part.first, part.last, part.source) for part in manifest.sources] == [(0, 600, "a"), (600, 900, "b")]
