"""Semantic duplicates: documents whose vectors are closer than a threshold, found by semhash.

Three phases: vectors of every shard, duplicates within each group of shards, the filter. Of close documents the first of
the input stays, and a document goes only when it is close to one that stays, never by a chain of others.

Scale: a group of `group_shards` consecutive shards is one task with its vectors in memory, about 3 kB a document with the
default model (index included). **Duplicates that lie in different groups are not found**: what costs n log n within a
group would need an index of the whole corpus. Exact and MinHash deduplication, which come before, do look at everything.
Larger groups find more and need more memory; put sources that repeat each other next to each other in the YAML file.

The index is built by one thread, in order, so that the same input gives the same result; on a processor with other
vector instructions a similarity next to the threshold may fall on its other side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import orjson
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from pydantic import BaseModel, ConfigDict, Field

from mecellem.errors import UserError
from preprocessing.pipeline.layout import StageFolders, whole_file, write_whole
from preprocessing.pipeline.phases import Phase, keeping, reading

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline

Encode = Callable[[list[str]], np.ndarray]
_BATCH = 512


class SemanticDedupSettings(BaseModel):
    """Settings of `semantic_dedup`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    threshold: float = Field(
        default=0.75, gt=0, le=1, description="cosine similarity from which on two are one; the paper: 0.75"
    )
    model: str = Field(
        default="akana",
        description="akana (256-d static Turkish vectors, offline), or a model2vec or sentence-transformers folder",
    )
    characters: int = Field(default=20_000, ge=1, description="beginning of a document that its vector is of; bounds the time")
    group_shards: int = Field(
        default=4, ge=1, description="shards compared with each other; more find more and need more memory"
    )


def phases(settings: SemanticDedupSettings, folders: StageFolders) -> list[Phase]:
    """Vectors of every shard, duplicates of every group of shards, filter."""
    encoder(settings.model)  # a wrong model is told of before any work
    groups = math.ceil(folders.tasks / settings.group_shards)
    return [
        reading(folders, "vectors", WriteVectors(settings, folders.work)),
        Phase("find", groups, [FindClose(settings, folders)]),
        keeping(folders, SemanticFilter(folders.work)),
    ]


@lru_cache(maxsize=1)
def encoder(model: str) -> Encode:
    """The function that makes vectors of texts. Raises `UserError` for a folder that holds no model."""
    if model == "akana":
        import akana

        return lambda texts: np.asarray(akana.embed_batch(texts), np.float32)
    folder = Path(model)
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise UserError(
            f"semantic_dedup: model: {model} is no folder of a model: give a model2vec or sentence-transformers folder"
        )
    if _is_model2vec(folder):
        from model2vec import StaticModel

        static = StaticModel.from_pretrained(str(folder))
        return lambda texts: static.encode(texts, use_multiprocessing=False)
    from sentence_transformers import SentenceTransformer

    transformer = SentenceTransformer(str(folder))
    return lambda texts: transformer.encode(texts, show_progress_bar=False)


def _is_model2vec(folder: Path) -> bool:
    """Whether the folder itself holds one static embedding, which needs no torch."""
    if not all((folder / name).is_file() for name in ("model.safetensors", "tokenizer.json", "config.json")):
        return False
    if orjson.loads((folder / "config.json").read_bytes()).get("model_type") == "model2vec":
        return True
    modules = folder / "modules.json"
    return modules.is_file() and "StaticEmbedding" in orjson.loads(modules.read_bytes())[0]["type"]


def _vectors(work: Path, shard: int) -> Path:
    return work / "vectors" / f"{shard:05d}.npy"


def _close(work: Path, shard: int) -> Path:
    return work / "close" / f"{shard:05d}.json"


class WriteVectors(PipelineStep):
    """Writes a vector for every document of a shard."""

    type = "🫂 - DEDUP"
    name = "vectors"

    def __init__(self, settings: SemanticDedupSettings, work: Path) -> None:
        super().__init__()
        self.settings = settings
        self.work = work

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the vectors of shard `rank`; yields nothing."""
        encode, texts = encoder(self.settings.model), (document.text[: self.settings.characters] for document in data)
        with self.track_time("task"):
            batches = [np.asarray(encode(batch), np.float32) for batch in iter(lambda: list(islice(texts, _BATCH)), [])]
            vectors = np.concatenate(batches) if batches else np.empty((0, 0), np.float32)
        with whole_file(_vectors(self.work, rank)) as handle:
            np.save(handle, vectors)
        yield from ()


class FindClose(PipelineStep):
    """Finds the documents of one group of shards that are close to one before them."""

    type = "🫂 - DEDUP"
    name = "semhash"

    def __init__(self, settings: SemanticDedupSettings, folders: StageFolders) -> None:
        super().__init__()
        self.settings = settings
        self.folders = folders

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write, for each shard of group `rank`, the numbers of its close documents with their similarity; yields nothing."""
        first = rank * self.settings.group_shards
        shards = range(first, min(first + self.settings.group_shards, self.folders.tasks))
        with self.track_time("task"):
            parts = [np.load(_vectors(self.folders.work, shard)) for shard in shards]
            full = [part for part in parts if len(part)]
            close = close_documents(np.concatenate(full), self.settings.threshold) if full else {}
        start = 0
        for shard, part in zip(shards, parts, strict=True):
            found = {number: close[start + number] for number in range(len(part)) if start + number in close}
            write_whole(_close(self.folders.work, shard), {str(number): score for number, score in found.items()})
            start += len(part)
        yield from ()


def close_documents(vectors: np.ndarray, threshold: float) -> dict[int, float]:
    """The rows that are as similar as `threshold` to an earlier row that stays, with that similarity."""
    from semhash import SemHash
    from semhash.index import Index
    from usearch.index import Index as UsearchIndex
    from vicinity.backends.usearch import UsearchArgs, UsearchBackend

    arguments = UsearchArgs(dim=vectors.shape[1])
    index = UsearchIndex(
        ndim=vectors.shape[1],
        metric="cos",
        connectivity=arguments.connectivity,
        expansion_add=arguments.expansion_add,
        expansion_search=arguments.expansion_search,
    )
    index.add(np.arange(len(vectors)), vectors, threads=1)  # by several threads, the index would differ from run to run
    items: Any = [[{"text": str(row)}] for row in range(len(vectors))]
    model: Any = None  # nothing is encoded any more
    found = SemHash(Index(vectors, items, UsearchBackend(index, arguments)), model, ["text"], was_string=True)
    return {int(item.record): round(float(item.score), 4) for item in found.self_deduplicate(threshold).filtered}


class SemanticFilter(BaseFilter):
    """Drops the documents that were found to be close to another."""

    name = "semantic duplicates"
    REASONS: ClassVar[dict[str, str]] = {
        "semantic_duplicate": "its vector is closer than the threshold to that of an earlier document"
    }

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.work = work
        self._close: dict[str, float] = {}
        self._number = -1

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents of shard `rank` that stay."""
        self._close, self._number = orjson.loads(_close(self.work, rank).read_bytes()), -1
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the next document of the shard stays."""
        self._number += 1
        similarity = self._close.get(str(self._number))
        if similarity is None:
            return True
        doc.metadata["measures"] = {"similarity": similarity}
        return False, "semantic_duplicate"
