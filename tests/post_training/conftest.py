"""A real, small ModernBERT with random weights and the sample's tokenizer, and a small real corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

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
