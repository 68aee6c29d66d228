"""Teacher vectors: whole shards, the same bytes whatever happens, and nothing that is not the teacher's."""

from __future__ import annotations

import gzip
import hashlib
import json
import resource
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
from tiny_models import write_jsonl, write_model

from mecellem.errors import UserError
from mecellem.files import sha256_of
from post_training.distillation.store import Shard, open_store, shard_folder
from post_training.distillation.texts import catalogue, find_files, read_shards, shard_bounds
from post_training.distillation.vectors import make_vectors

DATA = ("texts.arrow", "vectors.safetensors")


def digests(out):
    return {str(path.relative_to(out)): sha256_of(path) for path in sorted(out.rglob("*")) if path.name in DATA}


def all_rows(store):
    return list(range(len(store)))


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
    with pytest.raises(UserError, match=r"out holds vectors of other teacher: give the same command"):
        make_vectors(dense_teacher, [text_file], out, **same)
    with pytest.raises(UserError, match="of other texts: give"):
        make_vectors(teacher, [other], out, **same)
    with pytest.raises(UserError, match="of other dtype and prompt: give"):
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


def damage(out, what):
    shard = shard_folder(out, 2)
    if what == "cut":
        data = (shard / DATA[1]).read_bytes()
        (shard / DATA[1]).write_bytes(data[:-10])
    elif what == "flipped":
        data = bytearray((shard / DATA[1]).read_bytes())
        data[-5] ^= 1
        (shard / DATA[1]).write_bytes(bytes(data))
    elif what == "texts":
        (shard / DATA[0]).write_bytes((shard / DATA[0]).read_bytes()[:100])
    else:
        (shard / DATA[1]).unlink()


@pytest.mark.parametrize("what", ["cut", "flipped", "texts", "missing"])
def test_damaged_shards_are_refused_and_made_again(what, teacher, student, text_file, vectors, tmp_path):
    from post_training.distillation.train import train_distillation

    out = shutil.copytree(vectors, tmp_path / "out")
    damage(out, what)
    with pytest.raises(UserError, match=r"00002.* is damaged .*remove that folder and give the same"):
        train_distillation(student, out, tmp_path / "model", device="cpu")
    manifest = (out / "manifest.json").read_text()
    (out / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"00002.* is damaged"):
        make_vectors(teacher, [text_file], out, shards=4, device="cpu")
    (out / "manifest.json").write_text(manifest)
    assert not (tmp_path / "model").exists() and not (tmp_path / "model.unfinished").exists()
    shutil.rmtree(shard_folder(out, 2))  # as the sentence advises
    with pytest.raises(UserError, match="is not finished, 1 of 4 shards are missing: give the same"):
        train_distillation(student, out, tmp_path / "model", device="cpu")
    assert make_vectors(teacher, [text_file], out, shards=4, device="cpu") is not None
    assert digests(out) == digests(vectors)


def test_a_call_that_is_killed_before_the_manifest_is_not_done(teacher, text_file, vectors, tmp_path, monkeypatch):
    """A shard was removed and made again; the manifest of before says nothing about it."""
    from post_training.distillation import vectors as module

    out = shutil.copytree(vectors, tmp_path / "out")
    shutil.rmtree(shard_folder(out, 2))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            make_vectors(teacher, [text_file], out, shards=4, device="cpu")
    with pytest.raises(UserError, match="is not finished, its shards were not checked yet"):
        open_store(out)
    assert make_vectors(teacher, [text_file], out, shards=4, device="cpu")["verified"]["texts"] == 32
    open_store(out).check()


def replace_vectors(out, number, change):
    """Change a shard and its record, as somebody who means to would."""
    folder = shard_folder(out, number)
    stored = Shard(folder).vectors.clone()
    change(stored)
    save_file({"vectors": stored}, folder / DATA[1])
    record = json.loads((folder / "shard.json").read_text())
    record["sha256"][DATA[1]] = sha256_of(folder / DATA[1])
    (folder / "shard.json").write_text(json.dumps(record))


def test_vectors_that_are_not_the_teachers_are_found(teacher, text_file, vectors, tmp_path):
    out = shutil.copytree(vectors, tmp_path / "out")
    (out / "manifest.json").unlink()
    for number in range(4):
        replace_vectors(out, number, lambda stored: stored.copy_(stored.flip(0)))
    with pytest.raises(UserError, match=r"its stored vector has the cosine .* with the one that the teacher gives now"):
        make_vectors(teacher, [text_file], out, shards=4, device="cpu")
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize("whose", ["teacher", "texts", "part"])
def test_shards_from_elsewhere_are_found(whose, teacher, student, text_file, vectors, tmp_path):
    """Copied in from other vectors, whole and with a record of their own."""
    out, other = shutil.copytree(vectors, tmp_path / "out"), tmp_path / "other"
    lines = text_file.read_text(encoding="utf-8").splitlines()
    (tmp_path / "turned.jsonl").write_text("\n".join(lines[::-1]) + "\n", encoding="utf-8")
    make_vectors(
        student if whose == "teacher" else teacher,
        [tmp_path / "turned.jsonl" if whose == "texts" else text_file],
        other,
        shards=4,
        device="cpu",
    )
    (out / "manifest.json").unlink()
    shutil.rmtree(shard_folder(out, 1))
    shutil.copytree(shard_folder(other, 2 if whose == "part" else 1), shard_folder(out, 1))
    message = "holds other texts than the corpus" if whose == "part" else "was made with another teacher or other settings"
    with pytest.raises(UserError, match=rf"00001 {message} .*remove that folder and give the same"):
        make_vectors(teacher, [text_file], out, shards=4, device="cpu")
    shutil.rmtree(shard_folder(out, 1))
    assert make_vectors(teacher, [text_file], out, shards=4, device="cpu") is not None
    assert digests(out) == digests(vectors)


def test_a_manifest_that_is_cut_is_made_again(teacher, text_file, vectors, tmp_path):
    out = shutil.copytree(vectors, tmp_path / "out")
    (out / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged: remove that file and give the"):
        open_store(out)
    (out / "manifest.json").unlink()
    assert make_vectors(teacher, [text_file], out, shards=4, device="cpu") is not None
    assert digests(out) == digests(vectors)


def test_a_teacher_with_the_tokenizer_of_another_model_is_refused(teacher, text_file, sample_tokenizer, tmp_path):
    folder = shutil.copytree(teacher, tmp_path / "teacher")
    weights = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    config = json.loads((folder / "config.json").read_text())
    for rows, message in (
        (len(weights[name]) - 1, "has token ids up to"),
        (len(weights[name]) + 2000, "token ids and the model's"),
    ):
        resized = torch.zeros(rows, weights[name].shape[1])
        resized[: min(rows, len(weights[name]))] = weights[name][:rows]
        save_file(weights | {name: resized}, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
        with pytest.raises(UserError, match=rf"teacher.* {message} .*the tokenizer belongs to another model"):
            make_vectors(folder, [text_file], tmp_path / "out", device="cpu")
        assert not (tmp_path / "out").exists()


def test_a_special_token_without_a_row_does_not_stand_in_the_way(teacher, text_file, vectors, tmp_path):
    """As Gemma 3's <image_soft_token>, which EmbeddingGemma has no row for: no text gives it."""
    folder = shutil.copytree(teacher, tmp_path / "teacher")
    settings = json.loads((folder / "tokenizer.json").read_text())
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    token = {"content": "<image>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    settings["added_tokens"].append({**token, "id": rows, "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    assert len(SentenceTransformer(str(folder), device="cpu").tokenizer) == rows + 1
    assert make_vectors(folder, [text_file], tmp_path / "out", shards=4, device="cpu") is not None
    assert digests(tmp_path / "out") == digests(vectors)


def test_a_nan_among_the_vectors_is_refused_in_training(student, vectors, tmp_path):
    from post_training.distillation.settings import DistillationSettings
    from post_training.distillation.train import train_distillation

    out = shutil.copytree(vectors, tmp_path / "out")
    replace_vectors(out, 1, lambda stored: stored[5].fill_(float("nan")))
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["shards"][1] = json.loads((shard_folder(out, 1) / "shard.json").read_text())["sha256"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"00001, text 6: its vector has NaN or infinity"):
        train_distillation(student, out, tmp_path / "model", DistillationSettings(batch_size=16, held_out=0), device="cpu")


def test_a_full_disk_leaves_whole_shards_only(teacher, text_file, vectors, tmp_path):
    out = tmp_path / "out"
    sizes = sorted(path.stat().st_size for path in vectors.rglob("*") if path.name in DATA)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[-1] - 1, sizes[-1] - 1))

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
    done = subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, timeout=120, preexec_fn=limit)
    assert done.returncode and "the disk is full" in done.stderr and "nothing half-written was left" in done.stderr
    for folder in (out / "shards").iterdir():
        assert not folder.name.startswith("."), "no temporary folder"
        Shard(folder).check()
    post_train(*arguments)
    assert digests(out) == digests(vectors)


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
