"""Sentence-transformers folders with random weights and the sample's tokenizer, small enough to train in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoTokenizer, BertConfig, BertModel

from mecellem.files import sha256_of

DATA = ("texts.arrow", "vectors.safetensors")  # of a shard of vectors
PROMPTS = {"query": "soru: ", "document": "metin: "}


def write_model(
    folder: Path, tokenizer: Path, seed: int, *, width=32, layers=2, dense=0, pooling=True, normalize=True, dropout=0.1
):
    """`dense`: width of a Dense module after pooling, 0 for none."""
    words = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=128, pad_token_id=words.pad_token_id, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout, initializer_range=0.2,
    )  # fmt: skip
    plain = folder.with_name(f"{folder.name}-plain")
    BertModel(config).save_pretrained(plain)
    words.save_pretrained(plain)
    modules = [Transformer(str(plain), max_seq_length=64)]
    if pooling:
        modules.append(Pooling(width, pooling_mode="mean"))
    if dense:
        modules.append(Dense(width, dense, bias=False, activation_function=torch.nn.Identity()))
    if normalize:
        modules.append(Normalize())
    SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu").save(str(folder), create_model_card=False)
    return folder


def write_jsonl(path: Path, rows) -> Path:
    """`rows`: dictionaries with at least `text`."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def digests(out):
    """SHA-256 of the data files of a folder of vectors."""
    return {str(path.relative_to(out)): sha256_of(path) for path in sorted(out.rglob("*")) if path.name in DATA}


def all_rows(store):
    return list(range(len(store)))
