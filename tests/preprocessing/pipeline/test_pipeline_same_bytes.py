"""Every stage and tokens, twice as real commands that differ in all that must make no difference."""

import random

import pyarrow
import pyarrow.parquet
import pytest
from command_line import mecellem
from pipeline_runs import documents, outputs, write_corpus, write_jsonl

from preprocessing.jsonl import read_records

STAGES = ("repair", "exact_dedup", "minhash", "semantic_dedup", "quality", "language", "morphology", "pii")


@pytest.fixture
def corpus(tmp_path, sample_corpus, sample_tokenizer):
    """Three kinds of sources of real sentences, with copies, near copies, repeated ids, personal data and broken lines."""
    sentences = [record.text for record in read_records(sample_corpus / "train.jsonl.zst") if 60 <= len(record.text) <= 300]
    draw = random.Random(7)
    texts = [" ".join(draw.choices(sentences, k=draw.randrange(5, 40))) for _ in range(260)]
    texts += [texts[3], texts[8].upper(), f"{texts[20]} Son cümle eklendi.", f"{texts[30]} Arayın: 0532 123 45 67, a@b.com.tr."]
    draw.shuffle(texts)
    first = write_jsonl(tmp_path / "first.jsonl", texts[:120])
    with open(first, "a") as handle:
        handle.write("{broken\n")
    rows = {"key": [number % 75 for number in range(80)], "body": texts[120:200], "court": ["ceza", None] * 40}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "second.parquet", row_group_size=10)
    (tmp_path / "third.txt").write_text("\n\n".join(texts[200:]), encoding="utf-8")
    sources = [
        {"name": "first", "kind": "jsonl", "paths": [str(first)]},
        {"name": "second", "kind": "parquet", "paths": [str(tmp_path / "second.parquet")], "text_field": "body"},
        {"name": "third", "kind": "text", "paths": [str(tmp_path / "third.txt")], "text": {"documents": "blank_line"}},
    ]
    sources[1] |= {"id_field": "key", "keep_fields": ["court"]}
    held_out = tmp_path / "held_out.jsonl"
    write_jsonl(held_out, [texts[50]])
    stages = [*({name: {}} for name in STAGES), {"decontaminate": {"sets": {"held_out": [str(held_out)]}}}]
    tokens = {"tokenizer": str(sample_tokenizer), "per_source": True}
    return write_corpus(tmp_path / "corpus.yaml", sources, stages, shard_size="40KB", limits={"share": 0.5}, tokenize=tokens)


@pytest.mark.slow
def test_hash_seeds_and_workers_change_no_byte_of_any_stage(corpus):
    out, seen = corpus.parent / "out", []
    for seed, workers in (("1", "1"), ("4294967295", "3")):
        environment = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": workers}
        done = mecellem("prepare", "run", corpus, "--workers", workers, cwd=corpus.parent, env=environment, timeout=600)
        assert done.returncode == 0, done.stderr
        seen.append(outputs(out))
        out.rename(corpus.parent / f"run_{seed}")
    first, second = seen
    assert [name for name in first if first[name] != second.get(name)] == []
    assert first.keys() == second.keys()
    counts = [len(documents(stage)) for stage in sorted((corpus.parent / "run_1" / "stages").iterdir())]
    assert len(counts) == 1 + len(STAGES) + 1
    assert counts[0] > counts[2] > counts[3] and counts[-2] > counts[-1] > 50
    assert {name for name in first if name.endswith(".bin")} == {f"tokens/{name}.bin" for name in ("first", "second", "third")}
