"""Two small causal models with random weights (Llama with BOS, Qwen3 with EOS only) and real Turkish texts in two domains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from causal_models import write_model

from preprocessing.corpus.read_split import read_split


@pytest.fixture(scope="session")
def llama(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("causal") / "llama", sample_tokenizer, "llama")


@pytest.fixture(scope="session")
def qwen3(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("causal") / "qwen3", sample_tokenizer, "qwen3")


@pytest.fixture(scope="session")
def texts(sample_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 pieces of speeches, up to some 300 tokens, 20 treebank sentences, a title alone and an empty document."""
    documents = read_split(sample_corpus, "test")
    speeches = [document for document in documents if document.source == "ataturk"][:12]
    sentences = [document for document in documents if document.source not in ("ataturk", "kenet")][:20]
    assert len(speeches) == 12 and len(sentences) == 20
    records = [{"text": item.text[: 200 + 100 * number], "branch": "speech"} for number, item in enumerate(speeches)]
    records += [{"text": item.text[:400], "branch": "sentence"} for item in sentences]
    records += [{"text": "Anayasa"}, {"text": "  \n", "branch": "speech"}]
    path = tmp_path_factory.mktemp("texts") / "hukuk.jsonl"
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path
