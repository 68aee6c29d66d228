"""Small tokenizers of every family, trained on a few sentences, and small random models around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from conversion.verify import TEXTS

ENGLISH = (
    "The cells of a spreadsheet are formatted in the dialog that opens when you press the key.",
    "The court of appeal has decided that the contract is void and that the tenant must leave the house.",
    "Everyone has the right to life, liberty and security of person; no one shall be held in slavery.",
    "Choose the format of numbers, dates and currencies: 12.5, 2024, 1,000 and so on.",
)
SENTENCES = [text for text in (*TEXTS, *ENGLISH) for _ in range(3)]
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
XLM_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def _save(folder: Path, tokenizer: Tokenizer, roles: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    values = {"tokenizer_class": "PreTrainedTokenizerFast", **{f"{role}_token": token for role, token in roles.items()}}
    (folder / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def _around(tokenizer: Tokenizer, first: str, last: str) -> None:
    pairs = [(token, tokenizer.token_to_id(token)) for token in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B {last}", special_tokens=pairs
    )


def unigram(folder: Path, size: int = 300, texts: list[str] | None = None) -> Path:
    """XLM-R's way: SentencePiece's Unigram with "▁", `<s>` at one end and `</s>` at the other."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=XLM_SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts or SENTENCES, trainer)
    _around(tokenizer, "<s>", "</s>")
    roles = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    return _save(folder, tokenizer, roles)


def byte_level(folder: Path, size: int = 400, roles: dict[str, str] | None = None, texts: list[str] | None = None) -> Path:
    """GPT-2's way, with `<|end|>` behind a text. `roles` are those of its special tokens."""
    roles = roles or {"eos": "<|end|>", "pad": "<|pad|>"}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(dict.fromkeys(roles.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts or SENTENCES, trainer)
    end = roles["eos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return _save(folder, tokenizer, roles)


def wordpiece(folder: Path, size: int = 300, texts: list[str] | None = None) -> Path:
    """BERT's way: "##" before what goes on a word."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=BERT_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts or SENTENCES, trainer)
    _around(tokenizer, "[CLS]", "[SEP]")
    return _save(folder, tokenizer, {token[1:-1].lower(): token for token in BERT_SPECIAL})


def rows_of(tokenizer: Path) -> int:
    """Entries of a saved tokenizer."""
    return Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size()


def ids_of(tokenizer: Path) -> dict[str, int]:
    """Ids by string of a saved tokenizer."""
    return Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab()


def model_folder(
    folder: Path, tokenizer: Path, kind: str, padding: int = 0, dtype: torch.dtype = torch.float32, **values: Any
) -> Path:
    """A random model of a class of transformers (`BertModel`, `Qwen3ForCausalLM`, ...) with a tokenizer, saved by transformers.

    `padding`: rows of the embedding beyond the tokenizer's entries.
    """
    import transformers
    from transformers import AutoTokenizer

    torch.manual_seed(1)
    architecture = getattr(transformers, kind)
    roles = json.loads((tokenizer / "tokenizer_config.json").read_text())
    ids = ids_of(tokenizer)
    named = {f"{name}_id": ids[token] for name, token in roles.items() if name in ("bos_token", "eos_token", "pad_token")}
    encoder = {"cls_token_id": ids.get(roles.get("cls_token")), "sep_token_id": ids.get(roles.get("sep_token"))}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"intermediate_size": 48, "max_position_embeddings": 64}
    if "Bert" not in kind and "Roberta" not in kind:
        shape |= {"num_key_value_heads": 2, "head_dim": 8}
    config = architecture.config_class(
        vocab_size=rows_of(tokenizer) + padding, **shape, **named, **(encoder if kind.startswith("Modern") else {}), **values
    )
    model = architecture(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    model.to(dtype).save_pretrained(folder)
    words = AutoTokenizer.from_pretrained(tokenizer)
    words.model_max_length = 64
    words.save_pretrained(folder)
    return folder


def sentence_folder(folder: Path, tokenizer: Path, **values: Any) -> Path:
    """A random sentence-transformers model: BertModel, mean pooling, two Dense modules, unit length, prompts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    plain = model_folder(folder.parent / f"{folder.name} plain", tokenizer, "BertModel", **values)
    torch.manual_seed(2)
    modules = [Transformer(str(plain)), Pooling(32, pooling_mode="mean"), Dense(32, 48), Dense(48, 16), Normalize()]
    prompts = {"query": "query: ", "document": "passage: "}
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save(str(folder), create_model_card=False)
    return folder
