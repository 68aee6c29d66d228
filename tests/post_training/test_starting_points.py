"""What a training may start from: a Megatron checkpoint, exported once; folders that are not whole; RoBERTa's positions."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from command_line import mecellem

from mecellem.errors import UserError
from post_training.contrastive import TRAINING_RECORD, ContrastiveSettings, train_contrastive
from post_training.contrastive.model import own_length
from post_training.start import find_start, open_start, pooled

SETTINGS = ContrastiveSettings(steps=2, batch_size=8, train_seq_length=16)


@pytest.mark.slow
def test_a_megatron_checkpoint_is_exported_once(small_model, triplet_set, tmp_path):
    checkpoint = tmp_path / "step_0000001"
    done = mecellem("convert", "import", small_model, checkpoint, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    options = {"cache": tmp_path / "cache", "device": "cpu"}
    from_checkpoint = train_contrastive(checkpoint, tmp_path / "a", triplet_set, SETTINGS, **options)
    (export,) = (tmp_path / "cache").iterdir()
    before = export.stat().st_mtime_ns
    again = train_contrastive(checkpoint, tmp_path / "b", triplet_set, SETTINGS, **options)
    from_folder = train_contrastive(small_model, tmp_path / "c", triplet_set, SETTINGS, device="cpu")
    assert list((tmp_path / "cache").iterdir()) == [export] and export.stat().st_mtime_ns == before
    assert from_checkpoint.losses == again.losses == from_folder.losses
    assert json.loads((tmp_path / "a" / TRAINING_RECORD).read_text())["model"]["source"] == str(checkpoint)
    meta = checkpoint / "mecellem.json"
    os.utime(meta, ns=(meta.stat().st_atime_ns, meta.stat().st_mtime_ns + 1))
    assert find_start(checkpoint, tmp_path / "other").folder.name != export.name, "trained again: exported again"


def test_what_is_no_model_is_told(small_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="is not a model folder"):
        find_start(tmp_path / "none", tmp_path)
    with pytest.raises(UserError, match=r"some/model is no folder here and could not be had from the Hugging Face Hub"):
        find_start("some/model", tmp_path)
    broken = shutil.copytree(small_model, tmp_path / "broken")
    (broken / "modules.json").write_text("[]")
    (broken / "model.safetensors").write_bytes(b"")
    start = find_start(broken, tmp_path)
    assert start.kind == "sentence_transformers"
    with pytest.raises(UserError, match=r"broken is a sentence-transformers folder that cannot be loaded"):
        open_start(start, None, "cpu")


def test_static_vectors_are_refused(sample_tokenizer, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(sample_tokenizer / "tokenizer.json"))
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu")
    static.save(str(tmp_path / "static"), create_model_card=False)
    with pytest.raises(UserError, match="static has no transformer, but StaticEmbedding"):
        open_start(find_start(tmp_path / "static", tmp_path), None, "cpu")


def test_a_hash_follows_the_files_that_matter(small_model, tmp_path):
    copy = shutil.copytree(small_model, tmp_path / "copy")
    (copy / "README.md").write_text("notes")
    assert find_start(copy, tmp_path).sha256 == find_start(small_model, tmp_path).sha256
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"norm_eps": 1e-3}))
    assert find_start(copy, tmp_path).sha256 != find_start(small_model, tmp_path).sha256


@pytest.mark.parametrize(("kind", "positions", "length"), [("Roberta", 42, 40), ("Bert", 40, 40)])
def test_positions_that_padding_takes_are_not_the_models(kind, positions, length, sample_tokenizer, tmp_path):
    """RoBERTa's first position is its padding's id + 1; one token too many would be an index error."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(sample_tokenizer)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=positions, pad_token_id=1,
    )  # fmt: skip
    getattr(transformers, f"{kind}ForMaskedLM")(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model = open_start(find_start(tmp_path / "model", tmp_path), "lasttoken", "cpu")
    assert own_length(model) == length
    model.max_seq_length = length
    assert np.isfinite(model.encode(["kanun " * 100])).all()


def test_pooled_is_the_mean_of_a_plain_folder(small_model, tmp_path):
    model = open_start(find_start(small_model, tmp_path), "mean", "cpu")
    assert np.array_equal(model.encode(["Meclis"]), pooled(small_model, "mean", 256, "cpu").encode(["Meclis"]))
