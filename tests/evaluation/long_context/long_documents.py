"""Long documents of real sentences, encoders that look at known places, and a small masked language model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.encoders.base import BatchedEncoder, EncoderFacts
from evaluation.encoders.settings import EncoderSettings
from preprocessing.corpus.document import Document

SENTENCES = [
    "Davacı vekili, mahkemenin kararını süresi içinde temyiz etmiştir.",
    "Dağların eteğinde uzanan göl, kışın bütünüyle donar.",
    "Kira sözleşmesinin feshi için üç ay önceden yazılı bildirim yapılması gerekir.",
    "Leylekler her yıl aynı yuvaya döner ve yavrularını orada büyütür.",
    "Bilirkişi raporuna göre borçlunun kusuru yoktur.",
    "Bahar gelince kırlarda gelincikler açar, arılar bal toplar.",
    "Meclis komisyonu tasarıyı görüştü ve genel kurula gönderdi, teklif ertesi gün yasalaştı.",
    "Nehir yatağını değiştirince eski köprü karada kaldı.",
]


def long_documents(count: int = 6, sentences: int = 120) -> list[Document]:
    """Documents of differing words: every sentence carries a number of its own."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        parts = [f"{SENTENCES[rng.integers(len(SENTENCES))][:-1]} {number * 1000 + place}." for place in range(sentences)]
        made.append(Document(f"d{number}", "law", "", "", " ".join(parts)))
    return made


def write_documents(path: Path, documents: Sequence[Document]) -> Path:
    lines = [json.dumps({"text": document.text, "source": document.source}, ensure_ascii=False) for document in documents]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class PlaceEncoder(BatchedEncoder):
    """Hashed words, each weighed by its place (0: first word, 1: last one) in a document; queries weigh all alike."""

    def __init__(self, weigh, limit: int | None = None, dimensions: int = 4096):
        facts = EncoderFacts(
            name="place", spec="place", kind="test", sha256="0", parameters=None, embedding_parameters=None,
            dimensions=dimensions, max_seq_length=limit, pooling="places", pooling_assumed=False, query_prompt="",
            document_prompt="", text_prompt="", dtype="fp32",
        )  # fmt: skip
        super().__init__(facts, EncoderSettings())
        self.weigh = weigh

    def lengths(self, texts, role):
        return [2 + len(text.split()) for text in texts]

    def vectors(self, texts, role):
        return np.array([self.vector(text, role) for text in texts])

    def vector(self, text: str, role: str) -> np.ndarray:
        words = text.split()
        found = np.zeros(self.facts.dimensions)
        for number, word in enumerate(words):
            place = int(hashlib.sha256(word.strip(".,?'").encode()).hexdigest(), 16) % self.facts.dimensions
            found[place] += 1.0 if role == "query" else self.weigh(number / max(1, len(words) - 1))
        return found


def write_masked_lm(folder: Path, positions: int = 512, seed: int = 0) -> Path:
    """A random ModernBERT with global and local layers, far from uniform predictions."""
    import torch
    from encoder_models import write_tokenizer
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    write_tokenizer(folder)
    torch.manual_seed(seed)
    config = ModernBertConfig(
        vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, initializer_range=0.4,
        max_position_embeddings=positions, global_attn_every_n_layers=3, local_attention=16, pad_token_id=0, cls_token_id=1,
        bos_token_id=1, sep_token_id=2, eos_token_id=2,
    )  # fmt: skip
    ModernBertForMaskedLM(config).save_pretrained(folder)
    return folder
