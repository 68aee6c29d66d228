"""Small real models with random weights, one of every kind that `evaluation.encoders` opens."""

from __future__ import annotations

import json
from pathlib import Path

TEXTS = [
    "Anayasa Mahkemesi kararı Resmî Gazete'de yayımlandı.",
    "Kira sözleşmesinin feshi için üç ay önce bildirim gerekir.",
    "Işık hızı saniyede üç yüz bin kilometredir, ılık su içilir.",
    "Belediye meclisi bütçeyi oy çokluğuyla kabul etti.",
    "Öğretmen çocuklara güzel bir hikâye anlattı.",
    "Yönetmeliğin on ikinci maddesi yürürlükten kaldırılmıştır.",
]
POSITIONS = 64


def write_tokenizer(folder: Path, extra: int = 0) -> Path:
    """Byte-level BPE of 400 entries, and `extra` more that no text has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {name: f"[{name[:-6].upper()}]" for name in ("pad_token", "cls_token", "sep_token", "mask_token", "unk_token")}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.add_tokens([f"<fazla{number}>" for number in range(extra)])
    fast.save_pretrained(folder)
    return folder


def config_of(vocabulary: int = 400):
    from transformers import ModernBertConfig

    return ModernBertConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=POSITIONS, global_attn_every_n_layers=2, local_attention=16,
        pad_token_id=0, cls_token_id=1, bos_token_id=1, sep_token_id=2, eos_token_id=2,
    )  # fmt: skip


def write_transformer(folder: Path, seed: int = 0, extra: int = 0) -> Path:
    """A plain Hugging Face folder of a masked language model: it names no pooling."""
    import torch
    from transformers import ModernBertForMaskedLM

    torch.manual_seed(seed)
    ModernBertForMaskedLM(config_of()).save_pretrained(folder)
    return write_tokenizer(folder, extra)


def write_sentence_transformer(folder: Path, pooling: str = "cls", seed: int = 0) -> Path:
    """A sentence-transformers folder with prompts, a pooling of its own and a context of 32 tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    plain = write_transformer(folder.parent / f"{folder.name}-plain", seed)
    body = Transformer(str(plain))
    body.max_seq_length = 32
    modules = [body, Pooling(body.get_embedding_dimension(), pooling), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"query": "soru: ", "passage": "metin: "}, device="cpu")
    model.save_pretrained(str(folder))
    return folder


def write_asymmetric(folder: Path, query_length: int | None) -> Path:
    """A folder that reads `query_length` tokens of a query or, without that, has another model for queries."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    first = Transformer(str(write_transformer(folder.parent / "documents")), query_length=query_length)
    pooling = Pooling(first.get_embedding_dimension(), "mean")
    modules = [first, pooling]
    if query_length is None:
        other = Transformer(str(write_transformer(folder.parent / "queries", seed=1)))
        modules = [Router.for_query_document(query_modules=[other, pooling], document_modules=[first, pooling])]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


def write_model2vec(folder: Path) -> Path:
    """A static model of 16 dimensions that reads 20 tokens."""
    import numpy as np
    from model2vec import StaticModel
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(write_tokenizer(folder.parent / f"{folder.name}-tokenizer") / "tokenizer.json"))
    vectors = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 16)).astype(np.float32)
    StaticModel(vectors, tokenizer, max_length=20).save_pretrained(str(folder))
    return folder


def spoil(folder: Path) -> None:
    """Put a NaN into the embedding of a transformer."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "tok_embeddings" in name)
    tensors[name][5:] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
