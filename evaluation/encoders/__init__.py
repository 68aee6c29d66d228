"""Any model as an encoder: texts in, unit vectors out, with its prompts, its pooling and a count of what was cut."""

from evaluation.encoders.base import Counts, Encoder, EncoderFacts, Role, Vectors
from evaluation.encoders.bm25 import Bm25
from evaluation.encoders.opening import open_encoder, open_source, open_system
from evaluation.encoders.settings import EncoderSettings
from evaluation.encoders.source import SystemSource, find_source, find_sources

__all__ = [
    "Bm25",
    "Counts",
    "Encoder",
    "EncoderFacts",
    "EncoderSettings",
    "Role",
    "SystemSource",
    "Vectors",
    "find_source",
    "find_sources",
    "open_encoder",
    "open_source",
    "open_system",
]
