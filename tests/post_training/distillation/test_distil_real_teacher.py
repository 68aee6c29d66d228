"""The real multilingual-e5-small teaches its own first two layers on real Turkish texts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from tiny_models import write_jsonl

from post_training.distillation.settings import DistillationSettings
from post_training.distillation.train import train_distillation
from post_training.distillation.vectors import make_vectors

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def e5() -> Path:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from real_models import e5_small_folder
    finally:
        sys.path.pop(0)
    return e5_small_folder(ROOT / ".cache" / "models")


@pytest.mark.slow
def test_two_layers_of_e5_small_come_nearer_to_all_twelve(e5, train_documents, tmp_path):
    model = SentenceTransformer(str(e5), device="cpu")
    bert = model[0].auto_model
    bert.encoder.layer = bert.encoder.layer[:2]
    bert.config.num_hidden_layers = 2
    model.save(str(tmp_path / "student"), create_model_card=False)
    del model, bert
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": item.text} for item in train_documents[-200:]])
    manifest = make_vectors(e5, [texts], tmp_path / "vectors", prompt="query", max_length=32, device="cpu")
    assert manifest["width"] == 384 and manifest["prompt"] == "query: " and manifest["verified"]["lowest_cosine"] > 0.9999
    recipe = DistillationSettings(steps=8, batch_size=32, lr=3e-4, held_out=0.2, train="all")
    out = train_distillation(tmp_path / "student", tmp_path / "vectors", tmp_path / "out", recipe, device="cpu")
    looks = json.loads((out / "distillation.json").read_text())["result"]["held_out"]
    assert looks[-1]["held_out_cosine"] > looks[0]["held_out_cosine"] + 0.01
    kept = SentenceTransformer(str(out), device="cpu")
    assert kept.prompts == {"query": "query: ", "document": "passage: "} and kept.max_seq_length == 512
