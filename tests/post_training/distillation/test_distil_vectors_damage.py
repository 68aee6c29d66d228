"""Vectors that were damaged, replaced, cut off or are of another teacher: found, refused, made again."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess

import pytest
import torch
from post_train import command, environment, post_train
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_models import DATA, digests

from mecellem.errors import UserError
from mecellem.files import sha256_of
from post_training.distillation.store import Shard, open_store, shard_folder
from post_training.distillation.vectors import make_vectors


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
