"""Bad input of `mecellem distill train`: one sentence, before any work, and nothing left behind."""

from __future__ import annotations

import pytest
from sentence_transformers import SentenceTransformer
from tiny_models import write_jsonl, write_model

from mecellem.errors import UserError
from post_training.distillation.data import make_batches, split_rows
from post_training.distillation.settings import DistillationSettings
from post_training.distillation.store import open_store
from post_training.distillation.student import open_student
from post_training.distillation.train import train_distillation
from post_training.distillation.vectors import make_vectors
from post_training.start import find_start


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"lr": 0}, "must be above 0"),
        ({"held_out": 1}, "are shares"),
        ({"epochs": float("inf")}, "--epochs inf is no number"),
        ({"weight_decay": float("nan")}, "--weight-decay nan is no number"),
        ({"steps": 5, "epochs": 2}, "--epochs has no effect beside --steps"),
        ({"patience": 1, "held_out": 0}, "--patience needs held-out texts"),
        ({"loss": "relational", "mini_batch_size": 8}, "not with --loss relational"),
        ({"loss": "relational", "project": True}, "leave --project out"),
        ({"loss": "relational", "batch_size": 1}, "--batch-size 2 or more"),
        ({"train": "embeddings", "project": True}, "which --train embeddings would leave as it is"),
        ({"weight_decay": -1}, "must be at least 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        DistillationSettings(**values)


def share_of(vectors, count):
    """The share by which so many texts are held out."""
    words = sorted(open_store(vectors).hash_words().tolist())
    return (words[count - 1] + words[count]) / 2 / 2**64


def test_refusals_before_any_work(student, vectors, small_model, sample_tokenizer, tmp_path):
    out = tmp_path / "out"

    def refused(match, model=student, made=vectors, flags=None, **values):
        with pytest.raises(UserError, match=match):
            train_distillation(model, made, out, DistillationSettings(**values), device="cpu", **(flags or {}))

    refused("names no pooling .*: give --pooling mean", model=small_model)
    bare = write_model(tmp_path / "bare", sample_tokenizer, seed=1, pooling=False, normalize=False)
    refused("has no pooling module, so no vector a text", model=bare)
    refused("holds no vectors .*: make them with `mecellem distill vectors`", made=tmp_path)
    refused("--held-out 1e-09 leaves no text of", held_out=1e-9)
    refused("texts to train on make no batch of 5000: lower --batch-size", batch_size=5000)
    refused("--max-length 65 must be between 3 and 64", max_length=65)
    refused("--saved-length 129 is above the 128 positions", saved_length=129)
    refused(
        "leaves 2 of .* texts, and --loss relational chooses by the cosines", held_out=share_of(vectors, 2), loss="relational"
    )
    refused("--train embeddings.dense: no Dense module comes before the target", train="embeddings+dense")
    refused("--project: .* gives 32 numbers as the teacher does", project=True)
    refused("--checkpoint-every must be at least 0", flags={"checkpoint_every": -1})
    assert not out.exists() and not (tmp_path / "out.unfinished").exists()
    out.mkdir()
    (out / "mine").touch()
    refused(r"out exists already \(--out\): choose another folder or remove it first")


def test_a_clone_learns_from_its_own_teacher_or_where_another_one_is_meant(teacher, student, text_file, vectors, tmp_path):
    from conversion.clone.cloning import clone_folder

    clone_folder(teacher, teacher, tmp_path / "own")
    clone_folder(student, student, tmp_path / "foreign")
    fast = DistillationSettings(steps=1, batch_size=8)
    with pytest.raises(UserError, match=r"comes from the teacher student, and .* holds vectors of other weights .*teacher\)"):
        train_distillation(tmp_path / "foreign", vectors, tmp_path / "no", fast, device="cpu")
    train_distillation(tmp_path / "foreign", vectors, tmp_path / "meant", fast, another_teacher=True, device="cpu")
    train_distillation(tmp_path / "own", vectors, tmp_path / "out", fast, device="cpu")
    again = DistillationSettings(steps=1, batch_size=8, seed=1)
    train_distillation(tmp_path / "out", vectors, tmp_path / "again", again, device="cpu")  # a second round
    make_vectors(student, [text_file], tmp_path / "others", device="cpu")
    with pytest.raises(UserError, match="add --another-teacher"):
        train_distillation(tmp_path / "out", tmp_path / "others", tmp_path / "no", fast, device="cpu")


def test_rotary_positions_go_on_where_the_teachers_ended(vectors, sample_tokenizer, tmp_path):
    """ModernBERT computes its positions, so the saved model may read more than it was trained with."""
    import torch
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertModel

    words = AutoTokenizer.from_pretrained(sample_tokenizer)
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, local_attention=16, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    ModernBertModel(config).save_pretrained(tmp_path / "plain")
    words.save_pretrained(tmp_path / "plain")
    modules = [Transformer(str(tmp_path / "plain"), max_seq_length=64), Pooling(32, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"), create_model_card=False)
    settings = DistillationSettings(steps=1, batch_size=8, saved_length=8192)
    out = train_distillation(tmp_path / "model", vectors, tmp_path / "out", settings, device="cpu")
    loaded = SentenceTransformer(str(out), device="cpu")
    assert loaded.max_seq_length == 8192 and loaded.transformers_model.config.max_position_embeddings == 8192
    long = "anayasa mahkemesi " * 200
    whole = loaded.encode(long + "bir")
    assert not (whole == loaded.encode(long + "iki")).all(), "the end of the text is read"
    loaded.max_seq_length = 64
    assert (loaded.encode(long + "bir") == loaded.encode(long + "iki")).all()


def test_held_out_texts_are_the_same_in_any_order(teacher, text_file, vectors, tmp_path):
    lines = text_file.read_text(encoding="utf-8").splitlines()
    (tmp_path / "turned.jsonl").write_text("\n".join(lines[::-1]) + "\n", encoding="utf-8")
    make_vectors(teacher, [tmp_path / "turned.jsonl"], tmp_path / "turned", device="cpu")
    one, two = open_store(vectors), open_store(tmp_path / "turned")
    (train, held_out), (_, other) = split_rows(one, 0.2), split_rows(two, 0.2)
    assert set(one.texts(held_out.tolist())) == set(two.texts(other.tolist()))
    assert not set(train.tolist()) & set(held_out.tolist()) and len(train) + len(held_out) == len(one)
    assert 0.1 < len(held_out) / len(one) < 0.3
    assert len(split_rows(one, 0)[1]) == 0


def test_batches_are_of_alike_length_from_all_sources_and_leave_the_held_out_alone(student, vectors):
    store = open_store(vectors)
    settings = DistillationSettings(batch_size=16, held_out=0.1, epochs=2)
    opened = open_student(find_start(student, student.parent), store, settings, None, "cpu")
    batches = make_batches(store, opened, settings)
    assert batches.plan.shape == (2 * (batches.train // 16), 16)
    assert not set(batches.plan.ravel().tolist()) & set(batches.held_out.tolist())
    first = batches.plan[: len(batches.plan) // 2].ravel()
    assert len(set(first.tolist())) == len(first), "no text twice in a pass"
    tokens = [len(ids) for ids in opened.part.tokenizer(store.texts(range(len(store))))["input_ids"]]
    assert batches.truncated > 0 and batches.tokens_cut == sum(
        max(0, tokens[row] - 64) for row in range(len(store)) if row not in set(batches.held_out.tolist())
    )
    cut = [min(64, count) for count in tokens]
    places = sum(16 * max(cut[row] for row in batch) for batch in batches.plan.tolist())
    real = sum(cut[row] for batch in batches.plan.tolist() for row in batch)
    plain = make_batches(store, opened, DistillationSettings(batch_size=16, held_out=0.1, epochs=2, group_by_length=False))
    as_they_come = sum(16 * max(cut[row] for row in batch) for batch in plain.plan.tolist())
    assert real / places > 0.85 > real / as_they_come
    assert len(set(batches.plan[:20, 0].tolist())) > 10 and list(first) != sorted(first)


def test_a_dense_student_learns_before_or_behind_its_dense_modules(dense_teacher, sample_tokenizer, tmp_path):
    path = write_jsonl(tmp_path / "texts.jsonl", [{"text": f"{number} numaralı madde"} for number in range(80)])
    model = write_model(tmp_path / "student", sample_tokenizer, seed=9, dense=48)
    fast = {"steps": 4, "batch_size": 16, "held_out": 0.1, "lr": 1e-2}
    weights = {}
    for target, trained in (("pre_dense", "all"), ("final", "embeddings+dense"), ("final", "all")):
        made = tmp_path / target
        make_vectors(dense_teacher, [path], made, target=target, device="cpu")
        out = tmp_path / f"{target}-{trained}"
        train_distillation(model, made, out, DistillationSettings(**fast, train=trained), device="cpu")
        loaded = SentenceTransformer(str(out), device="cpu")
        assert [type(module).__name__ for module in loaded] == ["Transformer", "Pooling", "Dense", "Normalize"]
        assert loaded.encode("bir").shape == (48,) and loaded.prompts["document"] == "metin: "
        weights[target, trained] = loaded.state_dict()
    before = SentenceTransformer(str(model), device="cpu").state_dict()
    dense = next(name for name in before if name.startswith("2."))
    layer = next(name for name in before if "layer.0" in name and name.endswith("query.weight"))

    def same(key, name):
        return bool((weights[key][name] == before[name]).all())

    assert same(("pre_dense", "all"), dense) and not same(("pre_dense", "all"), layer)
    assert not same(("final", "embeddings+dense"), dense) and same(("final", "embeddings+dense"), layer)
    assert not same(("final", "all"), dense) and not same(("final", "all"), layer)


def test_a_plain_folder_with_pooling_and_a_prompt(small_model, teacher, text_file, sample_tokenizer, tmp_path):
    wide = write_model(tmp_path / "wide", sample_tokenizer, seed=8, width=64)
    make_vectors(wide, [text_file], tmp_path / "vectors", prompt="document", device="cpu")
    settings = DistillationSettings(steps=2, batch_size=16)
    out = train_distillation(small_model, tmp_path / "vectors", tmp_path / "out", settings, pooling="cls", device="cpu")
    import json

    record = json.loads((out / "distillation.json").read_text())
    assert record["student"]["prompt"] == "metin: " and record["student"]["max_length"] == 64
    loaded = SentenceTransformer(str(out), device="cpu")
    assert loaded[1].pooling_mode == "cls" and loaded.max_seq_length == 256, "the context is the student's own"


def test_a_full_disk_in_training_leaves_no_model(student, vectors, tmp_path):
    import resource
    import subprocess

    from post_train import command, environment

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    arguments = ["distillation.train", "--student", student, "--vectors", vectors, "--out", tmp_path / "out", "--steps", 2]
    done = subprocess.run(
        command(*arguments, "--batch-size", 16, "--held-out", "0.1", "--device", "cpu"),
        env=environment(), capture_output=True, text=True, timeout=120, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode and "the disk is full" in done.stderr, done.stderr
    assert not list(tmp_path.iterdir()), "neither a model nor checkpoints"
