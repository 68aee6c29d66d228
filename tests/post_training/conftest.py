"""A real, small ModernBERT with random weights and the sample's tokenizer, and a small real corpus."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from post_training.pairs import pair_set
from preprocessing.corpus.read_split import read_split


@pytest.fixture(scope="session")
def small_model(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertForMaskedLM

    folder = tmp_path_factory.mktemp("models") / "small"
    tokenizer = AutoTokenizer.from_pretrained(sample_tokenizer)
    config = ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, global_attn_every_n_layers=2, local_attention=64,
        pad_token_id=tokenizer.pad_token_id, cls_token_id=tokenizer.cls_token_id, bos_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id, eos_token_id=tokenizer.sep_token_id,
    )  # fmt: skip
    torch.manual_seed(1)
    ModernBertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def train_documents(sample_corpus: Path):
    """All speeches and treebank sentences of the train split, and 2,000 dictionary entries."""
    documents = read_split(sample_corpus, "train")
    entries = [document for document in documents if document.source == "kenet"]
    return [document for document in documents if document.source != "kenet"] + entries[:: len(entries) // 2000]


@pytest.fixture(scope="session")
def dropout_model(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with dropout: a training that goes on must go on in the random stream, too."""
    folder = shutil.copytree(small_model, tmp_path_factory.mktemp("models") / "dropout")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"embedding_dropout": 0.1, "mlp_dropout": 0.1}))
    return folder


@pytest.fixture(scope="session")
def triplets(train_documents):
    """400 real triplets: a definition, its example sentence, and the example of another word."""
    entries = [(item.definitions[0], item.examples[0]) for item in train_documents if item.definitions and item.examples]
    entries = list({anchor: (anchor, positive) for anchor, positive in entries if anchor.strip() and positive.strip()}.values())
    chosen = entries[:400]
    assert len(chosen) == 400
    return [(anchor, positive, chosen[number - 7][1]) for number, (anchor, positive) in enumerate(chosen)]


@pytest.fixture(scope="session")
def triplet_set(triplets):
    return pair_set(triplets, "triplets")


@pytest.fixture(scope="session")
def triplet_file(triplets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as JSONL with the columns of newmindai/ms-marco-turkish-triplets."""
    path = tmp_path_factory.mktemp("triplets") / "triplets.jsonl"
    names = ("query_text", "pos_text", "neg_text")
    lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in triplets]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
