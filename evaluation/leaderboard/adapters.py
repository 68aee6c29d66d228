"""Our encoders and BM25 in the words of mteb's protocols. Imports mteb, and with it torch: only where something is scored."""

from __future__ import annotations

from typing import Any

import torch
from mteb._create_dataloaders import create_dataloader
from mteb.models import ModelMeta
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import PromptType

from evaluation.encoders.base import Encoder, Role, Vectors
from evaluation.encoders.bm25 import Bm25, Run

REMEMBERED = 20_000  # texts whose vectors are kept (80 MB at 1,024 numbers): tasks share documents
Found = dict[tuple[str, str], Run]  # (split, subset) -> what was retrieved, best and worse


def texts_of(inputs: Any) -> list[str]:
    """All texts that one of mteb's data loaders yields."""
    return [text for batch in inputs for text in batch["text"]]


def meta_of(name: str) -> ModelMeta:
    """What mteb wants to know of a model: its name."""
    return ModelMeta.create_empty({"name": f"mecellem/{name.replace('/', '__')}", "revision": "local"})


class MtebEncoder:
    """An encoder as mteb's EncoderProtocol: vectors of unit length, so similarity is their product."""

    def __init__(self, encoder: Encoder) -> None:
        encoder.remember(REMEMBERED)
        self.encoder = encoder
        self.mteb_model_meta = meta_of(encoder.name)

    def encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **_: Any) -> Vectors:
        """`[n, dimensions]` of the texts, as queries, documents or plain texts."""
        role: Role = "text"
        if prompt_type is not None:
            role = "query" if prompt_type == PromptType.query else "document"
        return self.encoder.encode(texts_of(inputs), role)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """`[n, d]`, `[m, d]` (or `[d]` for one) -> cosines `[n, m]`."""
        one, other = (torch.atleast_2d(torch.as_tensor(vectors)) for vectors in (embeddings1, embeddings2))
        return one @ other.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """`[n, d]`, `[n, d]` -> the cosines `[n]` of the rows."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(dim=-1)


class MtebSearch(SearchEncoderWrapper):
    """mteb's exact search over an encoder, which keeps what it found: metrics of single queries are made of it."""

    def __init__(self, model: MtebEncoder) -> None:
        super().__init__(model)
        self.found: Found = {}

    def search(self, queries: Any, *, hf_split: str, hf_subset: str, **keywords: Any) -> Run:
        """As mteb's."""
        found: Run = super().search(queries, hf_split=hf_split, hf_subset=hf_subset, **keywords)
        self.found[hf_split, hf_subset] = found
        return found


class MtebBm25:
    """BM25 as mteb's SearchProtocol."""

    def __init__(self, system: Bm25) -> None:
        self.system = system
        self.mteb_model_meta = meta_of(system.name)
        self.documents: dict[str, str] = {}
        self.found: Found = {}

    def index(self, corpus: Any, *, task_metadata: Any, **_: Any) -> None:
        """Keep the documents, title and text joined as mteb does."""
        loader = create_dataloader(corpus, task_metadata=task_metadata, prompt_type=PromptType.document)
        self.documents = dict(zip(corpus["id"], texts_of(loader), strict=True))

    def search(self, queries: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, top_k: int, **_: Any) -> Run:
        """The best `top_k` documents of every query."""
        loader = create_dataloader(queries, task_metadata=task_metadata, prompt_type=PromptType.query)
        asked = dict(zip(queries["id"], texts_of(loader), strict=True))
        found = self.system.rank(asked, self.documents, top_k)
        self.found[hf_split, hf_subset] = found
        return found
