"""Training on given pairs: every loss, lengths, prompts, starting points, what is refused, and what the folder holds."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from post_train import environment

from mecellem.errors import UserError
from mecellem.files import sha256_of
from post_training.contrastive import FULL, TRAINING_RECORD, ContrastiveSettings, main, train_contrastive
from post_training.contrastive.record import CURVE, CURVE_DATA
from post_training.pairs import pair_set

QUICK = {"steps": 6, "batch_size": 16, "train_seq_length": 32, "lr": 2e-3}


def record_of(folder):
    return json.loads((folder / TRAINING_RECORD).read_text())


@pytest.fixture(scope="module")
def guide(small_model, triplet_set, tmp_path_factory):
    """A sentence-transformers folder with prompts of its own."""
    folder = tmp_path_factory.mktemp("guide") / "guide"
    settings = ContrastiveSettings(**QUICK, query_prompt="sorgu: ", document_prompt="metin: ", saved_seq_length=64)
    train_contrastive(small_model, folder, triplet_set, settings, device="cpu")
    return folder


@pytest.mark.parametrize(
    ("loss", "more"),
    [
        ("mnrl", {}),
        ("cached-mnrl", {"mini_batch_size": 5}),
        ("gist", {"guide_margin": 0.05, "guide_margin_strategy": "relative"}),
        ("cached-gist", {"mini_batch_size": 5}),
        ("mnrl", {"matryoshka_dims": (64, 16)}),
        ("cached-gist", {"matryoshka_dims": (64, 16), "mini_batch_size": 8}),
    ],
)
def test_every_loss_trains(loss, more, small_model, triplets, guide, tmp_path):
    """48 triplets can be learnt by heart."""
    settings = ContrastiveSettings(loss=loss, **{**QUICK, "steps": 24}, **more)
    guided = guide if "gist" in loss else None
    few = pair_set(triplets[:48], "few")
    result = train_contrastive(small_model, tmp_path / "out", few, settings, guide=guided, device="cpu")
    assert np.mean(result.losses[-3:]) < 0.6 * np.mean(result.losses[:3])
    record = record_of(tmp_path / "out")
    assert record["settings"]["loss"] == loss and (record["guide"] is not None) == (guided is not None)
    assert record["result"]["pairs"] == result.pairs == 24 * 16


def test_the_cached_loss_is_the_plain_one(small_model, triplet_set, tmp_path):
    """The same losses at every step, so the same gradients: 16 pairs at once, or 5 at a time."""
    plain = train_contrastive(small_model, tmp_path / "a", triplet_set, ContrastiveSettings(**QUICK), device="cpu")
    cached = ContrastiveSettings(**QUICK, loss="cached-mnrl", mini_batch_size=5)
    again = train_contrastive(small_model, tmp_path / "b", triplet_set, cached, device="cpu")
    assert again.losses == pytest.approx(plain.losses, abs=2e-4)


def test_hard_negatives_count(small_model, triplets, tmp_path):
    """The first loss of random weights is the logarithm of the candidates: 16 positives, and 16 negatives more."""
    settings = ContrastiveSettings(**{**QUICK, "steps": 1}, temperature=10.0)
    pairs = pair_set([row[:2] for row in triplets], "pairs")
    losses = [
        train_contrastive(small_model, tmp_path / name, data, settings, device="cpu").losses[0]
        for name, data in (("pairs", pairs), ("triplets", pair_set(triplets, "triplets")))
    ]
    assert losses == pytest.approx([np.log(16), np.log(32)], abs=0.05)


def test_gist_leaves_out_what_the_guide_calls_a_false_negative(small_model, triplets, guide, tmp_path):
    """Hard negatives that repeat the positive word for word are as near as it is: the guide must drop them."""
    same = pair_set([(anchor, positive, f"{positive} ") for anchor, positive, _ in triplets], "same")
    settings = {**QUICK, "steps": 1, "temperature": 0.01}
    plain = train_contrastive(small_model, tmp_path / "a", same, ContrastiveSettings(**settings), device="cpu")
    margin = ContrastiveSettings(loss="gist", guide_margin=1e-3, **settings)
    guided = train_contrastive(small_model, tmp_path / "b", same, margin, guide=guide, device="cpu")
    assert plain.losses[0] > np.log(2) - 0.01, "each positive has a twin, so at best every second choice is right"
    assert guided.losses[0] < plain.losses[0]


def test_lengths_prompts_and_pooling_are_trained_and_saved(small_model, triplet_set, tmp_path):
    settings = ContrastiveSettings(
        **QUICK, query_seq_length=8, saved_seq_length=200, pooling="cls", query_prompt="soru: ", document_prompt="belge: "
    )
    plain = train_contrastive(small_model, tmp_path / "plain", triplet_set, ContrastiveSettings(**QUICK), device="cpu")
    result = train_contrastive(small_model, tmp_path / "out", triplet_set, settings, device="cpu")
    assert result.losses[0] != plain.losses[0]
    model = record_of(tmp_path / "out")["model"]
    assert (model["max_seq_length"], model["query_length"], model["pooling"]) == (200, 8, "cls")
    program = (
        "import sys, numpy as np; from sentence_transformers import SentenceTransformer\n"
        f"model = SentenceTransformer({str(tmp_path / 'out')!r}, local_files_only=True)\n"
        "assert model.max_seq_length == 200 and model[1].pooling_mode == 'cls'\n"
        "assert model.prompts == {'query': 'soru: ', 'document': 'belge: '}, model.prompts\n"
        "long = 'kanun ' * 500\n"
        "assert len(model.preprocess([long], task='query')['input_ids'][0]) == 8\n"
        "assert len(model.preprocess([long])['input_ids'][0]) == 200\n"
        "ours, plain = model.encode_document(['Meclis']), model.encode(['belge: Meclis'])\n"
        "assert np.abs(ours - plain).max() < 1e-6 and abs((ours ** 2).sum() - 1) < 1e-5\n"
        "assert not any(name.split('.')[0] in ('post_training', 'mecellem') for name in sys.modules)\n"
    )
    clean = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_saved_model_is_not_shortened_unless_asked(small_model, triplet_set, tmp_path):
    train_contrastive(small_model, tmp_path / "out", triplet_set, ContrastiveSettings(**QUICK), device="cpu")
    assert record_of(tmp_path / "out")["model"]["max_seq_length"] == 256


def test_a_sentence_transformers_folder_keeps_what_it_is(guide, triplet_set, tmp_path):
    train_contrastive(guide, tmp_path / "out", triplet_set, ContrastiveSettings(**QUICK), device="cpu")
    model = record_of(tmp_path / "out")["model"]
    assert (model["query_prompt"], model["document_prompt"], model["pooling"]) == ("sorgu: ", "metin: ", "mean")
    assert model["max_seq_length"] == 64, "the folder's own"
    with pytest.raises(UserError, match=r"--pooling cls: .* with pooling mean of its own"):
        train_contrastive(guide, tmp_path / "other", triplet_set, ContrastiveSettings(**QUICK, pooling="cls"), device="cpu")


def test_bf16_trains_and_is_saved_in_fp32(small_model, triplet_set, tmp_path):
    from safetensors.numpy import load_file

    plain = train_contrastive(small_model, tmp_path / "a", triplet_set, ContrastiveSettings(**QUICK), device="cpu")
    result = train_contrastive(small_model, tmp_path / "b", triplet_set, ContrastiveSettings(**QUICK, bf16=True), device="cpu")
    assert result.losses != plain.losses and result.losses == pytest.approx(plain.losses, abs=0.2)
    assert {str(array.dtype) for array in load_file(tmp_path / "b" / "model.safetensors").values()} == {"float32"}


def test_equal_inputs_give_equal_bytes_and_the_record_names_them(dropout_model, triplet_set, tmp_path):
    settings = ContrastiveSettings(steps=None, epochs=0.5, batch_size=32, train_seq_length=32, post_seed=3)
    for name in ("a", "b"):
        train_contrastive(dropout_model, tmp_path / name, triplet_set, settings, device="cpu")
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file() and path.name != TRAINING_RECORD:
            assert sha256_of(path) == sha256_of(tmp_path / "b" / path.relative_to(tmp_path / "a")), path
    record = record_of(tmp_path / "a")
    assert len(record["result"]["losses"]) == 6 and record["data"]["sha256"] == triplet_set.sha256
    assert record["speed"]["tokens"] > 1000 and 0 <= record["speed"]["padding_share"] < 0.5
    assert record["versions"]["sentence-transformers"]


def test_held_out_pairs_that_are_trained_on_are_refused(small_model, triplets, tmp_path):
    train, validation = pair_set(triplets[:50], "train"), pair_set([row[:2] for row in triplets[47:60]], "held out")
    settings = ContrastiveSettings(**QUICK)
    with pytest.raises(UserError, match=r"3 of 13 validation pairs \(held out\) are trained on too: remove them"):
        train_contrastive(small_model, tmp_path / "out", train, settings, validation=validation, device="cpu")
    with pytest.raises(UserError, match="is trained on, so it is no validation data"):  # other order, no negatives
        rows = [row[:2] for row in triplets[40:10:-1]]
        train_contrastive(small_model, tmp_path / "out", train, settings, validation=pair_set(rows, "held out"), device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_held_out_pairs_are_measured_before_during_and_after(small_model, triplets, tmp_path):
    train, held_out = pair_set(triplets[:300], "train"), pair_set(triplets[300:], "held out")
    settings = ContrastiveSettings(**{**QUICK, "steps": 5})
    options = {"validation": held_out, "evaluate_every": 2, "tensorboard": tmp_path / "events", "workers": 1, "device": "cpu"}
    train_contrastive(small_model, tmp_path / "out", train, settings, **options)
    plain = train_contrastive(small_model, tmp_path / "plain", train, settings, device="cpu")
    scores = record_of(tmp_path / "out")["validation"]
    assert [score["step"] for score in scores] == [0, 2, 4, 5]
    few = {"validation": pair_set([row[:2] for row in triplets[300:305]], "few"), "device": "cpu"}
    train_contrastive(small_model, tmp_path / "few", train, settings, **few)
    assert [score["step"] for score in record_of(tmp_path / "few")["validation"]] == [0, 5], "fewer than a batch"
    assert scores[-1]["loss"] < scores[0]["loss"] and 0 < scores[-1]["recall_10"] <= 1
    assert list(plain.losses) == record_of(tmp_path / "out")["result"]["losses"], "to look changes nothing"
    rows = list(csv.DictReader((tmp_path / "out" / CURVE_DATA).open()))
    assert [row["step"] for row in rows] == [str(step) for step in range(6)] and rows[0]["loss"] == ""
    assert float(rows[2]["held_out_recall_10"]) == scores[1]["recall_10"]
    assert (tmp_path / "out" / CURVE).read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("settings", "options", "sentence"),
    [
        ({"train_seq_length": 512}, {}, "--train-seq-length 512 is above the 256 tokens"),
        ({"saved_seq_length": 512}, {}, "--saved-seq-length 512 is above the 256 tokens"),
        ({"matryoshka_dims": (128, 64)}, {}, "--matryoshka-dims 128 is above the width"),
        ({"loss": "gist"}, {}, "--loss gist needs --guide"),
        ({}, {"guide": "guide"}, "--guide has no effect with --loss mnrl"),
        ({"window_words": 8}, {}, "--window-words is for crops"),
        ({}, {"device": "cuda:1"}, "CUDA_VISIBLE_DEVICES=1"),
        ({}, {"checkpoint_every": -1}, "--checkpoint-every must be at least 0, not -1"),
        ({"batch_size": 512}, {}, "400 pairs make no batch of 512"),
        ({"loss": "gist"}, {"guide": "no/model"}, "no/model is no folder here and could not be had"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
    settings, options, sentence, small_model, triplet_set, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = ContrastiveSettings(**{**QUICK, **settings})
    with pytest.raises(UserError, match=sentence):
        train_contrastive(small_model, tmp_path / "out", triplet_set, recipe, **{"device": "cpu", **options})
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_ends_the_training(small_model, triplet_set, tmp_path):
    broken = shutil.copytree(small_model, tmp_path / "broken")
    from safetensors.numpy import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    save_file(
        {name: array * np.float32("nan") for name, array in weights.items()}, broken / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match=r"the loss is nan at step 1: lower --lr"):
        train_contrastive(broken, tmp_path / "out", triplet_set, ContrastiveSettings(**QUICK), device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_the_command(small_model, triplet_file, tmp_path, capsys):
    words = [small_model, "--data", triplet_file, "--out", tmp_path / "out", "--steps", 3, "--batch-size", 16]
    words += ["--train-seq-length", 32, "--matryoshka-dims", 64, 32, "--device", "cpu", "--checkpoint-every", 2]
    assert main([str(word) for word in words]) == 0
    shown = capsys.readouterr().out
    assert "400 rows of query_text, pos_text, neg_text" in shown and "tokens/s" in shown
    settings = record_of(tmp_path / "out")["settings"]
    assert settings["lr"] == FULL.lr and settings["matryoshka_dims"] == [64, 32]
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "checkpoints go away with the end"


def test_the_command_on_crops(small_model, sample_corpus, tmp_path):
    words = [small_model, "--corpus", sample_corpus, "--out", tmp_path / "out", "--steps", 2, "--batch-size", 8]
    assert main([*map(str, words), "--train-seq-length", "16", "--device", "cpu"]) == 0
    assert record_of(tmp_path / "out")["data"]["rows"] == 16


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give either --data .* or --corpus"),
        (["--data", "a.jsonl", "--corpus", "b"], "give either --data .* or --corpus"),
        (["--corpus", "b", "--columns", "a", "b"], "--columns is for --data"),
        (["--data", "TRIPLETS", "--evaluate-every", "5"], "--evaluate-every needs --validation"),
        (["--data", "TRIPLETS", "--validation", "TRIPLETS"], "is trained on, so it is no validation data"),
        (
            ["--data", "TRIPLETS", "--columns", "query_text", "pos_text", "hard"],
            r"no column hard \(--columns\): its columns are",
        ),
    ],
)
def test_flags_that_contradict_each_other(words, sentence, small_model, triplet_file, tmp_path):
    words = [str(triplet_file) if word == "TRIPLETS" else word for word in words]
    with pytest.raises(UserError, match=sentence):
        main([str(small_model), "--out", str(tmp_path / "out"), *words])
