"""What a distillation makes of a student, with every loss and target, and what it leaves beside the model."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny_models import write_model

from mecellem.errors import UserError
from post_training.distillation.losses import relational
from post_training.distillation.settings import DistillationSettings
from post_training.distillation.store import open_store
from post_training.distillation.train import train_distillation

FAST = {"steps": 12, "batch_size": 16, "lr": 2e-3, "held_out": 0.1}


def settings(**values):
    return DistillationSettings(**(FAST | values))


def record_of(folder):
    return json.loads((folder / "distillation.json").read_text())


def scores(folder, name="cosine"):
    return [look[f"held_out_{name}"] for look in record_of(folder)["result"]["held_out"]]


@pytest.fixture(scope="module")
def worn(teacher, tmp_path_factory):
    """The teacher with noise in its weights: what is to be learned is there, and has to be found again."""
    model = SentenceTransformer(str(teacher), device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * weight.std(correction=0) * torch.randn_like(weight)
    folder = tmp_path_factory.mktemp("worn") / "worn"
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.mark.parametrize(("loss", "score"), [("cosine", "cosine"), ("mse", "cosine"), ("relational", "relation")])
def test_every_loss_brings_the_student_nearer(loss, score, worn, vectors, tmp_path):
    out = train_distillation(worn, vectors, tmp_path / "out", settings(loss=loss, steps=60, batch_size=32), device="cpu")
    found, record = scores(out, score), record_of(out)
    assert max(found) > found[0] + 0.02, found
    best = max(record["result"]["held_out"], key=lambda look: look[f"held_out_{score}"])
    assert record["result"]["kept_step"] == best["step"]
    assert record["result"]["chosen_by"] == f"held-out {score}"
    assert record["vectors"]["languages"] == {"tr": record["vectors"]["count"]}
    assert sum(record["vectors"]["sources"].values()) == record["vectors"]["count"]


def test_relations_are_compared_between_different_texts():
    torch.manual_seed(0)
    teacher, student = (torch.nn.functional.normalize(torch.randn(5, width), dim=1) for width in (6, 3))
    rotation = torch.linalg.qr(torch.randn(6, 6))[0]
    assert float(relational(teacher @ rotation, teacher, ranks=1)) == pytest.approx(0, abs=1e-12)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    expected = sum(float(student[i] @ student[j] - teacher[i] @ teacher[j]) ** 2 for i, j in pairs) / len(pairs)
    assert float(relational(student, teacher, ranks=1)) == pytest.approx(expected, rel=1e-5)


def test_the_kept_weights_have_the_score_that_the_record_names(student, vectors, tmp_path):
    out = train_distillation(student, vectors, tmp_path / "out", settings(lr=0.05), evaluate_every=2, device="cpu")
    record, store = record_of(out), open_store(vectors)
    kept = next(look for look in record["result"]["held_out"] if look["step"] == record["result"]["kept_step"])
    assert kept["held_out_cosine"] == max(scores(out)), "a rate far too high: the last step is not the best"
    rows = [row for row, word in enumerate(store.hash_words().tolist()) if word < int(0.1 * 2**64)]
    assert len(rows) == record["data"]["held_out"]
    model = SentenceTransformer(str(out), device="cpu")
    assert model.max_seq_length == 64 and model.prompts["query"] == "soru: "
    found = model.encode(store.texts(rows), convert_to_tensor=True)
    cosines = torch.nn.functional.cosine_similarity(found, store.vectors(rows))
    assert float(cosines.mean()) == pytest.approx(kept["held_out_cosine"], abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert (out / "distillation.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert lines[-1]["step"] == 12 and "held_out_cosine" in lines[-1]


def test_the_schedule_is_a_cosine_down_to_zero(student, vectors, tmp_path):
    out = train_distillation(student, vectors, tmp_path / "out", settings(warmup_share=0.25, held_out=0), device="cpu")
    rates = [json.loads(line)["lr"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rates[3] == pytest.approx(2e-3), "three steps of warm-up"
    assert rates[3:] == pytest.approx([1e-3 * (1 + math.cos(math.pi * step / 9)) for step in range(9)])
    assert record_of(out)["result"]["kept_step"] == 12 and record_of(out)["result"]["chosen_by"] == "being the last"


def changed(before, after):
    one, two = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    return {name for name in one if not torch.equal(one[name], two[name])}


def test_only_embeddings_are_trained_where_asked(student, vectors, tmp_path):
    out = train_distillation(student, vectors, tmp_path / "out", settings(train="embeddings", held_out=0), device="cpu")
    assert changed(student, out) == {"embeddings.word_embeddings.weight"}


def test_embeddings_have_a_rate_of_their_own(student, vectors, tmp_path):
    still = settings(held_out=0, embedding_lr=1e-12, weight_decay=0)
    out = train_distillation(student, vectors, tmp_path / "out", still, device="cpu")
    before, after = (load_file(folder / "model.safetensors") for folder in (student, out))
    moved = {name: float((before[name] - after[name]).abs().max()) for name in before}
    assert moved["embeddings.word_embeddings.weight"] < 1e-6
    assert moved["embeddings.position_embeddings.weight"] > 1e-3
    assert moved["encoder.layer.0.attention.self.query.weight"] > 1e-3


def test_mini_batches_and_checkpointing_change_memory_and_not_results(sample_tokenizer, vectors, tmp_path):
    model = write_model(tmp_path / "still", sample_tokenizer, seed=5, dropout=0.0)
    whole = train_distillation(model, vectors, tmp_path / "1", settings(), device="cpu")
    parts = settings(mini_batch_size=4, gradient_checkpointing=True)
    other = train_distillation(model, vectors, tmp_path / "2", parts, device="cpu")
    losses = [
        [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
        for out in (whole, other)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert scores(whole)[-1] == pytest.approx(scores(other)[-1], abs=1e-3)


def test_bf16_computes_in_bf16_and_keeps_fp32_weights(student, vectors, tmp_path):
    one = train_distillation(student, vectors, tmp_path / "1", settings(compute="fp32"), device="cpu")
    two = train_distillation(student, vectors, tmp_path / "2", settings(compute="bf16"), device="cpu")
    assert changed(one, two), "other sums"
    assert all(array.dtype == torch.float32 for array in load_file(two / "model.safetensors").values())
    assert scores(two)[-1] == pytest.approx(scores(one)[-1], abs=0.03)
    assert record_of(two)["settings"]["compute"] == "bf16"


def test_dropout_is_off_unless_asked_for(student, vectors, tmp_path):
    """One batch of all texts: without dropout its loss is what the student's own vectors say."""
    store, model = open_store(vectors), SentenceTransformer(str(student), device="cpu")
    texts = store.texts(range(len(store)))
    cosines = torch.nn.functional.cosine_similarity(
        model.encode(texts, convert_to_tensor=True), store.vectors(range(len(store)))
    )
    found = {}
    for share in (0.0, None, 0.5):
        recipe = settings(dropout=share, held_out=0, steps=1, batch_size=len(texts))
        out = train_distillation(student, vectors, tmp_path / str(share), recipe, device="cpu")
        found[share] = record_of(out)["result"]["first_loss"]
        assert json.loads((out / "config.json").read_text())["hidden_dropout_prob"] == 0.1, "the config is the student's"
    assert found[0.0] == pytest.approx(1 - float(cosines.mean()), abs=1e-5)
    assert abs(found[None] - found[0.0]) > 1e-4 and abs(found[0.5] - found[None]) > 1e-4


def test_patience_ends_a_training_that_no_longer_improves(teacher, vectors, tmp_path):
    """The teacher itself as student: nothing can be nearer."""
    recipe = settings(patience=2, steps=40)
    out = train_distillation(teacher, vectors, tmp_path / "out", recipe, evaluate_every=3, device="cpu")
    result = record_of(out)["result"]
    assert result["stopped_early"] and (result["steps"], result["kept_step"]) == (6, 0)
    assert scores(out)[0] == pytest.approx(1, abs=1e-5) and not changed(teacher, out)


def test_a_narrow_student_gets_a_projection_that_is_saved(sample_tokenizer, vectors, tmp_path):
    narrow = write_model(tmp_path / "narrow", sample_tokenizer, seed=4, width=16)
    with pytest.raises(UserError, match=r"gives 16 numbers and the vectors of .* have 32: add --project"):
        train_distillation(narrow, vectors, tmp_path / "out", settings(), device="cpu")
    out = train_distillation(narrow, vectors, tmp_path / "out", settings(project=True, steps=40), device="cpu")
    model = SentenceTransformer(str(out), device="cpu")
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert model.encode("bir metin").shape == (32,)
    assert scores(out)[-1] > scores(out)[0] + 0.2
    free = train_distillation(narrow, vectors, tmp_path / "free", settings(loss="relational", steps=40), device="cpu")
    assert SentenceTransformer(str(free), device="cpu").encode("bir metin").shape == (16,)
    assert max(scores(free, "relation")) > scores(free, "relation")[0]
