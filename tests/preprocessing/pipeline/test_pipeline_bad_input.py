"""Every kind of broken input in one corpus: counted, located, set aside; the rest is read."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from pipeline_runs import documents, jsonl_source, sentences, set_aside, write_corpus, write_jsonl

from mecellem.errors import UserError
from preprocessing.pipeline.run import run


def line(number: int) -> bytes:
    return json.dumps({"text": sentences(number)}, ensure_ascii=False).encode() + b"\n"


@pytest.fixture
def corpus(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    member, other = gzip.compress(line(1) + line(2)), bytearray(gzip.compress(b"".join(map(line, range(3, 60)))))
    other[len(other) // 2] ^= 0xFF
    (raw / "a_corrupt_member.jsonl.gz").write_bytes(member + other)
    (raw / "b_cut.jsonl.zst").write_bytes(zstandard.compress(b"".join(map(line, range(100, 200))))[:-20])
    broken = [line(200), b'{"text": "cut\n', b"[1, 2]\n", b'"text"\n', line(201), b"\n", b'{"text": "Caf\xe9"}\n', line(202)]
    (raw / "c_lines.jsonl").write_bytes(b"".join(broken))
    (raw / "d_long.jsonl").write_bytes(line(300) + b'{"text": "' + b"a" * 3_000_000 + b'"}\n' + line(301))
    (raw / "e_nul.jsonl").write_bytes(line(400) + b"\0" * 700 + b"\n" + b'{"text": "a\\u0000b"}\n' + line(401))
    (raw / "f_empty.jsonl").write_bytes(b"")
    fields = [b'{"id": 1}\n', b'{"text": null}\n', b'{"text": 5}\n', b'{"text": " \\n"}\n', b'{"text": "\\ud800"}\n', line(500)]
    (raw / "g_fields.jsonl").write_bytes(b"".join(fields))
    source = jsonl_source(raw / "*", limits={"share": 1.0, "damaged_files": 2, "record_size": "1MB"})
    return write_corpus(tmp_path / "corpus.yaml", [source], shard_size="10MB")


def test_every_broken_record_is_counted_located_and_set_aside(corpus):
    run(corpus, workers=1)
    read = corpus.parent / "out" / "stages" / "00_read"
    found = [(Path(record["file"]).name[0], record["line"], record["reason"]) for record in set_aside(read)]
    damaged = [item for item in found if item[2] == "damaged_file"]
    assert [name for name, _, _ in damaged] == ["a", "b"]
    assert [item for item in found if item[2] != "damaged_file"] == [
        ("c", 2, "not_json"),
        ("c", 3, "not_json"),
        ("c", 4, "not_json"),
        ("c", 7, "not_utf8"),
        ("d", 2, "too_long"),
        ("e", 2, "nul_bytes"),
        ("e", 3, "nul_bytes"),
        ("f", 0, "empty_file"),
        ("g", 1, "no_text"),
        ("g", 2, "no_text"),
        ("g", 3, "text_type"),
        ("g", 4, "empty_text"),
        ("g", 5, "not_json"),
    ]
    kept = [int(document["text"].split()[1].rstrip(":")) for document in documents(read)]
    from_gzip = [number for number in kept if number < 100]
    assert from_gzip == list(range(1, 1 + len(from_gzip))) and len(from_gzip) >= 2
    assert damaged[0][1] == len(from_gzip) + 1
    from_zstd = [number for number in kept if 100 <= number < 200]
    assert from_zstd == list(range(100, 100 + len(from_zstd)))
    assert [number for number in kept if number >= 200] == [200, 201, 202, 300, 301, 400, 401, 500]
    ledger = json.loads((read / "ledger.json").read_text())
    counts = ledger["sources"]["laws"]["quarantined"]
    assert sum(counts.values()) == len(found)
    assert [place["line"] for place in ledger["locations"]["not_json"]] == [2, 3, 4, 5]


def test_a_damaged_archive_stops_the_run_unless_that_is_allowed(corpus):
    corpus.write_text(corpus.read_text().replace("damaged_files: 2", "damaged_files: 1"))
    with pytest.raises(UserError, match=r"cut or broken in 2 places, such as in .*a_corrupt_member.jsonl.gz: .*damaged_files"):
        run(corpus, workers=1)
    corpus.write_text(corpus.read_text().replace("damaged_files: 1", "damaged_files: 2"))
    run(corpus, workers=1)


def test_a_line_of_100_megabytes_is_never_held(tmp_path):
    path = tmp_path / "long.jsonl"
    with open(path, "wb") as handle:
        handle.write(line(1) + b'{"text": "')
        for _ in range(100):
            handle.write(b"a" * 1_000_000)
        handle.write(b'"}\n' + line(2))
    program = """
import resource, sys
from preprocessing.sources.documents import read_part
from preprocessing.sources.found import Part, Reading
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reading = Reading("laws", "jsonl", "CC0", "text", None, (), 8 << 20)
for item in read_part(Part(sys.argv[1], 0), reading):
    print(type(item).__name__, getattr(item, "detail", ""))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *items, megabytes = done.stdout.splitlines()
    assert items == ["Document ", "Problem the line has 100,000,012 bytes, limits: record_size allows 8,388,608", "Document "]
    assert int(megabytes) < 40


def test_a_damaged_shard_of_the_run_itself_is_one_sentence(tmp_path):
    from mecellem.errors import UserError

    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(20)))
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)])
    run(corpus, workers=1)
    shard = tmp_path / "out" / "stages" / "00_read" / "shards" / "00000.jsonl.zst"
    shard.write_bytes(shard.read_bytes()[:-9])
    corpus.write_text(corpus.read_text().replace("stages: []", "stages: [{exact_dedup: {}}]"))
    with pytest.raises(UserError, match=r"00_read/shards/00000\.jsonl\.zst: the compressed file is cut or broken"):
        run(corpus, workers=1)
