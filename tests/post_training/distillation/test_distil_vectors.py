"""Teacher vectors: whole shards, the same bytes whatever happens, and nothing that is not the teacher's."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import zstandard
from post_train import command, environment, post_train
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_models import all_rows, digests, write_jsonl, write_model

from mecellem.errors import UserError
from post_training.distillation.store import open_store, shard_folder
from post_training.distillation.texts import catalogue, find_files, read_shards, shard_bounds
from post_training.distillation.vectors import make_vectors


def test_every_text_has_the_vector_that_the_teacher_gives_it_alone(teacher, text_file, vectors):
    store, model = open_store(vectors), SentenceTransformer(str(teacher), device="cpu")
    words = list(dict.fromkeys(json.loads(line)["text"] for line in text_file.read_text(encoding="utf-8").splitlines()))
    assert store.texts(all_rows(store)) == words, "in order, each once"
    alone = torch.stack([model.encode(text, convert_to_tensor=True) for text in words])
    assert torch.nn.functional.cosine_similarity(alone, store.vectors(all_rows(store))).min() > 0.99999
    manifest = json.loads((vectors / "manifest.json").read_text())
    assert manifest["verified"]["texts"] == 32 and manifest["verified"]["lowest_cosine"] > 0.9999
    joint = hashlib.sha256(b"".join(hashlib.sha256(text.encode()).digest() for text in words)).hexdigest()
    assert manifest["text_hashes"] == joint and manifest["count"] == len(words)
    uncut = [len(ids) for ids in model.tokenizer(words, truncation=False)["input_ids"]]
    assert manifest["truncated"] == sum(length > 64 for length in uncut) > 0
    assert manifest["tokens"] == sum(uncut) and manifest["tokens_cut"] == sum(max(0, length - 64) for length in uncut)
    word = np.frombuffer(hashlib.sha256(words[7].encode()).digest()[:8], dtype=">u8")[0]
    assert store.hash_words()[7] == word


def test_copies_and_empty_texts_are_left_out_and_counted(teacher, tmp_path):
    rows = [
        {"text": "bir", "lang": "tr", "source": "a"},
        {"text": " \n"},
        {"text": "iki"},
        {"text": "bir", "source": "b"},
        {"text": ""},
    ]
    path = write_jsonl(tmp_path / "few.jsonl", rows)
    manifest = make_vectors(teacher, [path], tmp_path / "out", device="cpu")
    assert (manifest["count"], manifest["duplicates"], manifest["empty"]) == (2, 1, 2)
    store = open_store(tmp_path / "out")
    assert store.texts([0, 1]) == ["bir", "iki"]
    assert store.counts("source") == {"a": 1, "few.jsonl": 1} and store.counts("lang") == {"": 1, "tr": 1}
    empty = write_jsonl(tmp_path / "empty.jsonl", [{"text": " "}, {"text": ""}])
    with pytest.raises(UserError, match=r"empty\.jsonl has no text that is not empty"):
        make_vectors(teacher, [empty], tmp_path / "none", device="cpu")
    assert not (tmp_path / "none").exists()


def test_the_same_texts_from_any_kind_of_file(sample_corpus, tmp_path):
    words = [f"metin {number}" for number in range(9)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in words).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(lines))
    (tmp_path / "d.txt").write_text("\n".join(words), encoding="utf-8")
    found = {
        path.name: catalogue([path]).sha256 for path in find_files([tmp_path / name for name in ("a.jsonl", "d.txt")], "train")
    }
    found |= {path.name: catalogue([path]).sha256 for path in find_files([tmp_path], "train")}
    assert len(found) == 4 and len(set(found.values())) == 1
    assert find_files([sample_corpus], "validation") == (sample_corpus / "validation.jsonl.zst",)
    (tmp_path / "d.txt").write_bytes(b"iyi\nk\xf6t\xfc\n")
    with pytest.raises(UserError, match=r"d\.txt, line 2: not UTF-8 \(byte 1 of the line\)"):
        catalogue([tmp_path / "d.txt"])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"holds no \.jsonl"):
        find_files([tmp_path / "nothing"], "train")


def test_shards_read_alone_are_those_of_a_whole_reading(tmp_path):
    words = [f"metin {number % 40}" for number in range(60)]
    found = catalogue([write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in words])])
    bounds = shard_bounds(len(found), 7)
    whole = [text.text for _, texts in read_shards(found, bounds, range(7)) for text in texts]
    assert whole == [f"metin {number}" for number in range(40)]
    for wanted in ([0], [6], [2, 5], [5, 2]):
        for number, texts in read_shards(found, bounds, wanted):
            assert [text.text for text in texts] == whole[bounds[number] : bounds[number + 1]]
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text + "!"} for text in words])
    with pytest.raises(UserError, match="line 1: the file changed while it was read"):
        list(read_shards(found, bounds, [0]))


def test_tasks_of_an_array_make_what_one_call_makes(teacher, text_file, vectors, tmp_path):
    out = tmp_path / "out"
    assert make_vectors(teacher, [text_file], out, shards=4, task="1/3", device="cpu") is None
    assert sorted(path.name for path in (out / "shards").iterdir()) == ["00001"]
    with pytest.raises(UserError, match=r"is not finished, 3 of 4 shards are missing"):
        open_store(out)
    assert make_vectors(teacher, [text_file], out, shards=4, task="0/3", device="cpu") is None
    assert make_vectors(teacher, [text_file], out, shards=4, task="2/3", device="cpu") is not None, "the last one finishes"
    assert digests(out) == digests(vectors)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert make_vectors(teacher, [text_file], out, shards=4, device="cpu") == json.loads((out / "manifest.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before, "nothing to do"
    with pytest.raises(UserError, match="--task 3/3: two numbers"):
        make_vectors(teacher, [text_file], out, shards=4, task="3/3", device="cpu")


@pytest.mark.slow
def test_killed_at_any_time_and_the_same_bytes(teacher, text_file, vectors, tmp_path):
    out = tmp_path / "out"
    arguments = [
        "distillation.vectors",
        "--teacher",
        teacher,
        "--corpus",
        text_file,
        "--out",
        out,
        "--shards",
        4,
        "--device",
        "cpu",
    ]
    for wanted in (0, 1, 3):
        process = subprocess.Popen(command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 120
        while len(list(out.glob("shards/0*"))) <= wanted and not list(out.glob("shards/.0*.tmp*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    post_train(*arguments)
    assert digests(out) == digests(vectors)
    assert not list(out.rglob(".*")), "nothing of the killed ones is left"


def test_vectors_of_another_teacher_prompt_or_texts_are_refused(teacher, dense_teacher, text_file, vectors, tmp_path):
    out = shutil.copytree(vectors, tmp_path / "out")
    other = write_jsonl(tmp_path / "other.jsonl", [{"text": f"başka {number}"} for number in range(600)])
    same = {"shards": 4, "device": "cpu"}
    with pytest.raises(UserError, match=r"out holds vectors that differ in teacher: give the same command"):
        make_vectors(dense_teacher, [text_file], out, **same)
    with pytest.raises(UserError, match="that differ in texts: give"):
        make_vectors(teacher, [other], out, **same)
    with pytest.raises(UserError, match="that differ in dtype and prompt: give"):
        make_vectors(teacher, [text_file], out, prompt="query", dtype="bf16", **same)
    with pytest.raises(UserError, match="holds no vectors: choose another folder"):
        make_vectors(teacher, [text_file], tmp_path, **same)


def test_prompt_by_name_by_words_and_default(teacher, text_file, tmp_path):
    few = write_jsonl(tmp_path / "few.jsonl", [{"text": "anayasa"}])
    model = SentenceTransformer(str(teacher), device="cpu")
    for number, (prompt, words) in enumerate([("query", "soru: "), ("Metin: ", "Metin: "), (None, ""), ("", "")]):
        make_vectors(teacher, [few], tmp_path / str(number), prompt=prompt, dtype="fp32", device="cpu")
        store = open_store(tmp_path / str(number))
        assert store.manifest["prompt"] == words
        assert np.allclose(store.vectors([0])[0], model.encode(words + "anayasa", prompt=""), atol=1e-6)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_pre_dense_is_what_the_dense_module_is_given(dtype, dense_teacher, teacher, text_file, tmp_path):
    few = write_jsonl(tmp_path / "few.jsonl", [{"text": f"metin {number}"} for number in range(40)])
    make_vectors(dense_teacher, [few], tmp_path / "out", target="pre_dense", dtype=dtype, device="cpu")
    store, model = open_store(tmp_path / "out"), SentenceTransformer(str(dense_teacher), device="cpu")
    assert store.width == 32 and store.shards[0].vectors.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    given = []
    model[2].register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]["sentence_embedding"].clone()))
    model.encode(store.texts([3]), prompt="")
    assert torch.allclose(given[0][0], store.vectors([3])[0], rtol=1e-2 if dtype == "bf16" else 1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"--target pre_dense: .* has no Dense module"):
        make_vectors(teacher, [few], tmp_path / "no", target="pre_dense", device="cpu")


def test_a_text_without_a_vector_is_refused_by_its_line(sample_tokenizer, tmp_path):
    folder = write_model(tmp_path / "broken", sample_tokenizer, seed=1)
    weights = load_file(folder / "model.safetensors")
    tokens = SentenceTransformer(str(folder), device="cpu").tokenizer
    bad = tokens("anayasa", add_special_tokens=False)["input_ids"][0]
    weights["embeddings.word_embeddings.weight"][bad] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    path = write_jsonl(tmp_path / "few.jsonl", [{"text": "bir"}, {"text": "iki"}, {"text": "anayasa"}])
    with pytest.raises(UserError, match=r"few\.jsonl, line 3 \('anayasa'\), one of 1 such texts: the teacher gives NaN"):
        make_vectors(folder, [path], tmp_path / "out", device="cpu")
    assert not list((tmp_path / "out" / "shards").iterdir())


def test_numbers_too_large_for_fp16_are_refused(sample_tokenizer, tmp_path):
    folder = write_model(tmp_path / "large", sample_tokenizer, seed=1, dense=8, normalize=False)
    dense = folder / "2_Dense" / "model.safetensors"
    save_file({name: value * 1e6 for name, value in load_file(dense).items()}, dense)
    path = write_jsonl(tmp_path / "few.jsonl", [{"text": "bir"}])
    with pytest.raises(UserError, match=r"line 1 .*its vector has numbers beyond fp16: give another --dtype"):
        make_vectors(folder, [path], tmp_path / "out", device="cpu")
    assert make_vectors(folder, [path], tmp_path / "fp32", dtype="fp32", device="cpu")["count"] == 1


def test_a_training_maps_the_vectors_and_holds_no_copy(tmp_path, sample_tokenizer):
    """200 MB of vectors: opening them and taking a batch must not read them all."""
    from post_training.distillation.store import write_shard
    from post_training.distillation.texts import Text

    texts = [Text(f"metin {number}", "tr", "a", tmp_path, number) for number in range(1000)]
    facts = {"tokens": np.ones(1000, dtype=np.int32), "truncated": 0, "tokens_cut": 0, "seconds": 1.0}
    write_shard(tmp_path, 0, texts, torch.zeros(1000, 50_000, dtype=torch.float32), facts)
    code = f"""
import resource, sys
from pathlib import Path
import torch
from post_training.distillation.store import Shard, VectorStore
torch.zeros(1)
def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = held()
store = VectorStore(Path({str(tmp_path)!r}), {{"width": 50_000}}, [Shard(Path({str(shard_folder(tmp_path, 0))!r}))])
assert store.vectors([3, 999]).shape == (2, 50_000)
print((held() - before) >> 20)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60, f"{done.stdout} MiB"


def test_settings_that_do_not_fit_the_teacher_are_refused(teacher, small_model, text_file, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="--max-length 65 must be between 3 and 64"):
        make_vectors(teacher, [text_file], out, max_length=65, device="cpu")
    with pytest.raises(UserError, match="--shards 100000 is above the number of texts"):
        make_vectors(teacher, [text_file], out, shards=100_000, device="cpu")
    with pytest.raises(UserError, match="is no sentence-transformers folder"):
        make_vectors(small_model, [text_file], out, device="cpu")
    with pytest.raises(UserError, match="--split dev: a corpus has the splits"):
        make_vectors(teacher, [text_file], out, split="dev", device="cpu")
    assert not out.exists()
