"""Lengths and prompts of the model that is trained, and of the one that is saved."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from post_training.contrastive.settings import ContrastiveSettings
from post_training.pairs import ANCHOR

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

QUERY, DOCUMENT = "query", "document"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the model is: its own length in tokens, width of its vectors, pooling; and the prompts it is trained with."""

    own_length: int
    width: int
    pooling: str
    query_prompt: str
    document_prompt: str
    query_length: int | None

    def prompts(self, columns: Collection[str]) -> dict[str, str] | None:
        """Prompt by column; None where there is none."""
        found = {name: self.query_prompt if name == ANCHOR else self.document_prompt for name in columns}
        return {name: prompt for name, prompt in found.items() if prompt} or None

    def routes(self, columns: Collection[str]) -> dict[str, str]:
        """Task by column; empty where queries are cut like any text."""
        if self.query_length is None:
            return {}
        return {name: QUERY if name == ANCHOR else DOCUMENT for name in columns}


def own_length(model: SentenceTransformer) -> int:
    """Tokens that the model's positions and tokenizer allow, special ones included."""
    length = model.max_seq_length
    assert length is not None
    learned = learned_positions(model)
    return int(length) if learned is None else min(int(length), learned)


def learned_positions(model: SentenceTransformer) -> int | None:
    """Tokens for which the model has learned positions; None for one that computes them (rotary ones, say)."""
    from torch.nn import Embedding

    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, Embedding):  # RoBERTa counts positions from its padding's id + 1
            return int(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    return None


def prepare(model: SentenceTransformer, settings: ContrastiveSettings) -> Shape:
    """Set the model's lengths and prompts for the training. Raises `UserError` for a length that it does not have."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    own = own_length(model)
    for name, value in (("train", settings.train_seq_length), ("saved", settings.saved_seq_length)):
        if value is not None and value > own:
            raise UserError(f"--{name}-seq-length {value} is above the {own} tokens that the model takes: lower it")
    model.max_seq_length = settings.train_seq_length
    first: Any = model[0]
    if settings.query_seq_length is not None:
        first.query_length = settings.query_seq_length
    given = model.prompts
    query = (given.get(QUERY) or "") if settings.query_prompt is None else settings.query_prompt
    document = given.get(DOCUMENT) or given.get("passage") or ""
    document = document if settings.document_prompt is None else settings.document_prompt
    model.prompts = {**given, QUERY: query, DOCUMENT: document}
    width = model.get_embedding_dimension()
    assert width is not None
    poolings = [str(module.pooling_mode) for module in model if isinstance(module, Pooling)]
    return Shape(own, width, poolings[0] if poolings else "none", query, document, getattr(first, "query_length", None))


def lengthen(model: SentenceTransformer, settings: ContrastiveSettings, shape: Shape) -> None:
    """Give the trained model the length that it is saved with."""
    model.max_seq_length = settings.saved_seq_length or shape.own_length
