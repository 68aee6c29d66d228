"""The file that leads from documents back to raw files: named in the manifest, checked, and merged."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
import zstandard
from command_line import mecellem

from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.manifest import manifest_path, provenance_path, read_manifest, verify_files, write_manifest
from preprocessing.tokens.merge import merge_corpora
from preprocessing.tokens.provenance_file import attach
from preprocessing.tokens.tokenize import tokenize_corpus

STAGES = [{"name": "read", "settings": {}}, {"name": "exact_dedup", "settings": {"normalize": True}}]


def lines_of(documents, name="a", stages=STAGES, ranges=3):
    """So many documents, as a run tells of them."""
    bounds = [documents * n // ranges for n in range(ranges + 1)]
    yield {"stages": stages}
    for shard, (first, last) in enumerate(pairwise(bounds)):
        parts = [{"path": f"raw/{name}.jsonl", "start": first, "end": last}]
        owner = {"source": name, "licence": "CC0-1.0", "shard": f"{shard:05d}.jsonl.zst", "parts": parts}
        yield {"first": first, "last": last, **owner}


def stored(prefix):
    with zstandard.open(provenance_path(prefix), "rb") as stream:
        return [orjson.loads(line) for line in io.BufferedReader(stream)]


@pytest.fixture
def corpora(sample_tokenizer, tmp_path):
    """a and b have provenance, c has none."""
    prefixes = []
    for name, documents in (("a", 30), ("b", 12), ("c", 7)):
        path = tmp_path / f"{name}.jsonl"
        records = [{"text": f"{name} {n}", "source": name, "licence": "MIT"} for n in range(documents)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        prefix = tmp_path / "shards" / name
        manifest = tokenize_corpus([path], sample_tokenizer, prefix)
        prefixes.append(prefix)
        if name != "c":
            attach(prefix, manifest, lines_of(documents, name))
    return prefixes


def test_the_manifest_names_it_and_a_change_is_found(corpora):
    prefix = corpora[0]
    manifest = read_manifest(prefix)
    entry, path = manifest.provenance, provenance_path(prefix)
    assert (entry.file, entry.documents) == (path.name, 30)
    assert (entry.bytes, entry.sha256) == (path.stat().st_size, sha256_of(path))
    verify_files(prefix, manifest)
    stamp = path.stat().st_mtime_ns, manifest_path(prefix).stat().st_mtime_ns
    assert attach(prefix, manifest, lines_of(30)) == manifest
    assert (path.stat().st_mtime_ns, manifest_path(prefix).stat().st_mtime_ns) == stamp
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"a\.provenance\.jsonl\.zst: SHA-256 differs"):
        verify_files(prefix, manifest)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.provenance\.jsonl\.zst is missing though"):
        verify_files(prefix, manifest, hashes=False)


def test_a_manifest_without_such_a_field_is_read(corpora):
    path = manifest_path(corpora[0])
    content = json.loads(path.read_text())
    del content["provenance"]
    path.write_text(json.dumps(content))
    manifest = read_manifest(corpora[0])
    assert manifest.provenance is None
    verify_files(corpora[0], manifest)


def test_ranges_that_are_not_of_all_documents_are_refused(corpora):
    with pytest.raises(UserError, match="would be of 29 documents, the corpus has 30"):
        attach(corpora[0], read_manifest(corpora[0]), lines_of(29))
    entry = read_manifest(corpora[0]).provenance.model_copy(update={"documents": 12})
    shutil.copy(provenance_path(corpora[0]), provenance_path(corpora[1]))
    entry = entry.model_copy(update={"file": "b.provenance.jsonl.zst"})
    write_manifest(corpora[1], read_manifest(corpora[1]).model_copy(update={"provenance": entry}))
    with pytest.raises(UserError, match=r"b\.provenance\.jsonl\.zst is not the provenance of all documents"):
        merge_corpora(corpora, corpora[0].parent / "x")


def test_a_merged_corpus_has_the_provenance_of_its_parts_and_says_what_is_unknown(corpora, tmp_path):
    out = tmp_path / "whole" / "x"
    flags = ["prepare", "merge", "--input", *corpora, "--out", out]
    done = mecellem(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "note c came without provenance: of their documents the whole knows source and licence only" in said
    manifest = read_manifest(out)
    verify_files(out, manifest)
    assert manifest.provenance.documents == manifest.documents == 49
    head, *ranges = stored(out)
    assert head == {"stages": STAGES}
    assert [line for line in ranges if "stages" in line] == [{"stages": None}]
    ranges = [line for line in ranges if "stages" not in line]
    assert [(part["source"], part["first"], part["last"]) for part in ranges] == [
        *(("a", n, n + 10) for n in (0, 10, 20)),
        *(("b", n, n + 4) for n in (30, 34, 38)),
        ("c", 42, 49),
    ]
    assert ranges[3]["parts"] == [{"path": "raw/b.jsonl", "start": 0, "end": 4}]
    assert (ranges[-1]["shard"], ranges[-1]["parts"], ranges[-1]["licence"]) == (None, [], "MIT")
    again = mecellem(*flags, cwd=tmp_path)
    assert "nothing to do" in again.stdout and read_manifest(out) == manifest
    merge_corpora([out, corpora[2]], tmp_path / "more")  # one more is merged from what was merged
    assert [line for line in stored(tmp_path / "more") if "stages" in line] == [head, {"stages": None}]
    merge_corpora(corpora[2:], tmp_path / "none")
    assert read_manifest(tmp_path / "none").provenance is None and not provenance_path(tmp_path / "none").exists()


def test_another_corpus_in_its_place_does_not_keep_it(corpora, sample_tokenizer, tmp_path):
    tokenize_corpus([tmp_path / "c.jsonl"], sample_tokenizer, corpora[0], replace=True)
    assert not provenance_path(corpora[0]).exists()
    assert read_manifest(corpora[0]).provenance is None


DIE_AT_RENAME = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_provenance_file import lines_of
from mecellem.manifest import read_manifest
from preprocessing.tokens.provenance_file import attach
number, prefix = int(sys.argv[1]), Path(sys.argv[2])
rename, calls = os.replace, 0
def dying(source, target):
    global calls
    calls += 1
    if calls == number: os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = dying
attach(prefix, read_manifest(prefix), lines_of(30, "other"))
"""


@pytest.mark.parametrize("number", [1, 2, 3])  # the manifest without it, the file, the manifest with it
def test_killed_at_any_rename_what_the_manifest_names_is_there(corpora, number):
    prefix, tests = corpora[0], str(Path(__file__).parent)
    paths = [tests, str(Path(tests).parents[1])]
    command = [sys.executable, "-c", DIE_AT_RENAME, str(number), str(prefix), tests]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, timeout=60, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    manifest = read_manifest(prefix)
    verify_files(prefix, manifest)
    assert (manifest.provenance is None) == (number > 1)
    named = attach(prefix, manifest, lines_of(30, "other"))
    verify_files(prefix, named)
    assert stored(prefix) == list(lines_of(30, "other"))


def copies(prefix, folder, count):
    """The same corpus under so many names."""
    manifest = read_manifest(prefix)
    folder.mkdir()
    found = []
    for number in range(count):
        copy = folder / f"{number:05d}"
        for kind in ("bin", "idx", "provenance.jsonl.zst"):
            os.link(f"{prefix}.{kind}", f"{copy}.{kind}")
        files = {f"{copy.name}.{kind}": manifest.files[f"{prefix.name}.{kind}"] for kind in ("bin", "idx")}
        entry = manifest.provenance.model_copy(update={"file": provenance_path(copy).name})
        content = manifest.model_copy(update={"files": files, "provenance": entry})
        manifest_path(copy).write_text(content.model_dump_json())
        found.append(copy)
    return found


def test_a_thousand_shards_take_ten_times_as_long_as_a_hundred(corpora, tmp_path):
    seconds = {}
    for count in (100, 1000):
        shards = copies(corpora[1], tmp_path / f"{count}", count)
        started = time.process_time()
        merge_corpora(shards, tmp_path / "whole" / f"{count}")
        seconds[count] = time.process_time() - started
        head, *ranges = stored(tmp_path / "whole" / f"{count}")
        assert len(ranges) == 3 * count and head == {"stages": STAGES}
        assert [line["first"] for line in ranges] == list(range(0, 12 * count, 4))
    assert seconds[1000] < 30 * seconds[100]  # a quadratic step would make it a hundred times
