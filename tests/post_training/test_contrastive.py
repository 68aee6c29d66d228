from __future__ import annotations

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from mecellem.errors import UserError
from mecellem.files import sha256_of
from post_training.contrastive import TRAINING_RECORD, ContrastiveSettings, train_contrastive
from post_training.crops import crop_pairs
from post_training.start import pooled

SETTINGS = ContrastiveSettings(steps=30, batch_size=24, lr=2e-3)


@pytest.fixture(scope="module")
def trained(small_model, train_documents, tmp_path_factory):
    target = tmp_path_factory.mktemp("trained") / "embedding"
    result = train_contrastive(small_model, target, train_documents, SETTINGS, device="cpu")
    return target, result


def held_out_pairs(documents):
    return crop_pairs(documents, batches=1, batch_size=100, window_words=64, crop_min_words=3, crop_largest_share=0.2, seed=99)


def batch_loss(model, pairs, temperature):
    """The InfoNCE loss of one batch of pairs, without training."""
    model.eval()
    loss = MultipleNegativesRankingLoss(model, scale=1 / temperature)
    with torch.no_grad():
        features = [
            {key: value.to(model.device) for key, value in model.preprocess(list(side)).items() if hasattr(value, "to")}
            for side in zip(*pairs, strict=True)
        ]
        return float(loss(features, labels=None))


def test_loss_falls_on_pairs_that_were_not_trained_on(trained, small_model, train_documents):
    target, result = trained
    pairs = held_out_pairs(train_documents)
    before = batch_loss(pooled(small_model, "mean", 16, "cpu"), pairs, 0.05)
    after = batch_loss(pooled(target, "mean", 16, "cpu"), pairs, 0.05)
    assert after < before - 0.05
    assert len(result.losses) == SETTINGS.steps and result.pairs == 30 * 24
    assert np.mean(result.losses[-8:]) < np.mean(result.losses[:8])


def test_same_seed_same_weights_other_seed_others(trained, small_model, train_documents, tmp_path):
    target, result = trained
    again = train_contrastive(small_model, tmp_path / "again", train_documents, SETTINGS, device="cpu")
    assert again.losses == result.losses
    assert sha256_of(tmp_path / "again" / "model.safetensors") == sha256_of(target / "model.safetensors")
    other = ContrastiveSettings(steps=2, batch_size=24, post_seed=1)
    assert train_contrastive(small_model, tmp_path / "other", train_documents, other).losses[0] != result.losses[0]


def test_folder_loads_without_our_code(trained, tmp_path):
    target, _ = trained
    program = (
        "import sys; from sentence_transformers import SentenceTransformer\n"
        f"vectors = SentenceTransformer({str(target)!r}, local_files_only=True).encode(['Meclis toplandı.', 'Kanun.'])\n"
        "assert vectors.shape == (2, 64) and abs((vectors ** 2).sum(1) - 1).max() < 1e-5\n"
        "assert not any(name.split('.')[0] in ('post_training', 'mecellem') for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_lies_beside_the_weights(trained, small_model):
    target, result = trained
    record = json.loads((target / TRAINING_RECORD).read_text())
    assert record["result"]["losses"] == list(result.losses) and record["settings"]["steps"] == 30
    assert "sentence_transformers" in (target / "README.md").read_text()
    assert not [path for path in target.parent.iterdir() if path != target], "something was left outside the folder"


def test_a_taken_target_is_refused(trained, small_model, train_documents):
    target, _ = trained
    before = sha256_of(target / "model.safetensors")
    with pytest.raises(UserError, match="exists already"):
        train_contrastive(small_model, target, train_documents, ContrastiveSettings(steps=1, batch_size=2))
    assert sha256_of(target / "model.safetensors") == before


def test_mean_pooling_ignores_padding(small_model):
    model = pooled(small_model, "mean", 64, "cpu")
    texts = ["Kısa.", "Türkiye Büyük Millet Meclisi bugün toplandı ve kanunu kabul etti."]
    together, alone = model.encode(texts), np.stack([model.encode([text])[0] for text in texts])
    assert np.abs(together - alone).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"steps": 0}, "--steps"),
        ({"batch_size": 1}, "--batch-size"),
        ({"lr": 0.0}, "--lr"),
        ({"crop_largest_share": 2}, "share"),
    ],
)
def test_bad_settings_name_the_flag(values, flag):
    with pytest.raises(UserError, match=flag):
        ContrastiveSettings(**values)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(small_model, train_documents, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # the weights have 2 MB
    try:
        with pytest.raises(UserError, match=r"target: the disk is full") as caught:
            train_contrastive(small_model, tmp_path / "target", train_documents, ContrastiveSettings(steps=1, batch_size=4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_training_fails(small_model, tmp_path):
    with pytest.raises(UserError, match="needs 24 documents"):
        train_contrastive(small_model, tmp_path / "target", [], SETTINGS)
    with pytest.raises(UserError, match="not a model folder"):
        train_contrastive(tmp_path / "none", tmp_path / "target", [], SETTINGS)
    assert list(tmp_path.iterdir()) == []
