"""From a word on the command line to something that encodes or ranks."""

from __future__ import annotations

from pathlib import Path

from evaluation.encoders.base import Encoder
from evaluation.encoders.bm25 import Bm25
from evaluation.encoders.settings import EncoderSettings
from evaluation.encoders.source import SystemSource, find_source
from mecellem.errors import UserError

DEFAULT = EncoderSettings()


def open_source(source: SystemSource, *, device: str = "auto", settings: EncoderSettings = DEFAULT) -> Encoder | Bm25:
    """Load what `find_source` has checked. `device`: auto, cpu, cuda or cuda:N (packages and static vectors use the CPU)."""
    if source.kind == "bm25":
        return Bm25(source.name)
    from evaluation.encoders import static

    match source.kind:
        case "use":
            return static.UseEncoder(source, settings)
        case "akana":
            return static.AkanaEncoder(source, settings)
        case "model2vec":
            return static.Model2VecEncoder(source, settings)
    from evaluation.encoders.transformer import TransformerEncoder

    return TransformerEncoder(source, settings, device)


def open_system(
    spec: str, *, device: str = "auto", settings: EncoderSettings = DEFAULT, cache: Path | None = None
) -> Encoder | Bm25:
    """A model of any kind as an encoder, or BM25. `spec` and `cache` as `find_source` takes them; raises its `UserError`."""
    return open_source(find_source(spec, cache), device=device, settings=settings)


def open_encoder(spec: str, *, device: str = "auto", settings: EncoderSettings = DEFAULT, cache: Path | None = None) -> Encoder:
    """As `open_system`, for models alone: BM25, which makes no vectors, is refused."""
    system = open_system(spec, device=device, settings=settings, cache=cache)
    if isinstance(system, Bm25):
        raise UserError("bm25 makes no vectors: give a model")
    return system
