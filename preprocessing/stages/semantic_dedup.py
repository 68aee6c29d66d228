"""Semantic duplicates: documents whose vectors are closer than a threshold, found by semhash, and whose wording agrees.

Vectors of every shard, close ones among all of them (`vector_cells`), the filter. Of close documents the first of the input
stays, and a document goes only when it repeats one that stays, never by a chain of others.

A vector says what a sentence means, but of a long text only what field it is of, and of the beginning at that. So two
documents of which one has more than `short_words` words must also share wording (`overlap`): docs/decisions/0021 has what that
keeps. `min_overlap: 0` leaves everything to the vectors, as plain semhash does.

Scale: vector and sketch take 1.3 kB a document on disk with the default model, and what is found 20 bytes a pair in the memory
of the one task that decides. Searching is cut into independent tasks; up to 4 million documents its work grows as the corpus
does, above that faster. About one close document in a hundred is missed with the default of `probes`: docs/decisions/0019.

All sums are of one thread, so that the same input gives the same result; on a processor with other vector instructions a
similarity next to the threshold may fall on its other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import orjson
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from pydantic import BaseModel, ConfigDict, Field

from mecellem.errors import UserError
from mecellem.files import disk_full_cause
from preprocessing.pipeline.layout import StageFolders, whole_file
from preprocessing.pipeline.partners import NamePartners, NoteIds
from preprocessing.pipeline.phases import Phase, keeping, reading
from preprocessing.stages import vector_cells
from preprocessing.stages.overlap import Overlap
from preprocessing.stages.settings import Share
from preprocessing.stages.vector_cells import close_path, one_thread, sketches_path, vectors_path
from preprocessing.turkish import lower

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline

Encode = Callable[[list[str]], np.ndarray]
_BATCH = 512  # documents
_BATCH_CHARACTERS = 4_000_000  # or fewer documents of so many together


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
    characters: int = Field(
        default=1000,
        ge=1,
        description="beginning of a document that its vector is of. A static vector is the mean of the words': the longer "
        "the texts of one field, the closer all of them. Of 259 speeches 0.75 keeps 93% by 1,000 characters, 56% by 20,000",
    )
    probes: int = Field(
        default=32, ge=1, le=1024, description="cells of near vectors that a document is looked for in; more find more, slower"
    )
    min_overlap: Share = Field(
        default=0.4,
        ge=0,
        description="least Jaccard similarity of the runs of words of two close documents, over their whole texts, where the "
        "longer has more than short_words words; 0: the vectors alone decide, as in the paper. Ours, see docs/decisions/0021",
    )
    short_words: int = Field(
        default=50, ge=0, description="up to so many words a vector stands for the whole text: semhash alone decides. Ours"
    )
    run_words: int = Field(default=3, ge=1, le=50, description="words in a run for min_overlap; fewer forgive more changes")

    @property
    def overlap(self) -> Overlap:
        """When the wording of two documents agrees."""
        return Overlap(self.min_overlap, self.short_words, self.run_words)


def phases(settings: SemanticDedupSettings, folders: StageFolders) -> list[Phase]:
    """Vectors of every shard, close ones among them, filter."""
    encoder(settings.model)  # a wrong model is told of before any work
    return [
        reading(folders, "vectors", NoteIds(folders.work), WriteVectors(settings, folders.work)),
        *vector_cells.phases(folders, settings.threshold, settings.probes, settings.overlap),
        keeping(folders, NamePartners(folders.work), SemanticFilter(folders.work)),
    ]


@lru_cache(maxsize=1)
def encoder(model: str) -> Encode:
    """The function that makes vectors of texts. Raises `UserError` for a folder that holds no model, or a damaged one."""
    if model == "akana":
        import akana

        return lambda texts: np.asarray(akana.embed_batch(texts), np.float32)
    folder = Path(model)
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise UserError(
            f"semantic_dedup: model: {model} is no folder of a model: give a model2vec or sentence-transformers folder"
        )
    try:
        return _open(folder)
    except Exception as error:  # of whatever library reads the files: safetensors, tokenizers, transformers, JSON
        if disk_full_cause(error) is not None or isinstance(error, MemoryError):
            raise
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"semantic_dedup: model: {model} cannot be loaded ({cause}): get the folder again") from None


def _open(folder: Path) -> Encode:
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


class WriteVectors(PipelineStep):
    """Writes a unit vector and a sketch of the wording of every document of a shard.

    The vector is zeros where the model knows no word of the document.
    """

    type = "🫂 - DEDUP"
    name = "vectors"

    def __init__(self, settings: SemanticDedupSettings, work: Path) -> None:
        super().__init__()
        self.settings = settings
        self.work = work

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the files of shard `rank`; yields nothing."""
        encode, overlap = encoder(self.settings.model), self.settings.overlap
        vectors, sketches = [np.empty((0, 0), np.float32)], [overlap.sketches([])]
        with self.track_time("task"), one_thread():
            for batch in batches(data or ()):
                vectors.append(unit(encode([beginning(document.text, self.settings.characters) for document in batch])))
                sketches.append(overlap.sketches([document.text for document in batch]))
        for path, values in (
            (vectors_path(self.work, rank), np.concatenate(vectors[1:] or vectors)),
            (sketches_path(self.work, rank), np.concatenate(sketches)),
        ):
            with whole_file(path) as handle:
                np.save(handle, values)
        yield from ()


def beginning(text: str, characters: int) -> str:
    """What a vector is made of: static models know next to no word in capitals, so text of nothing else is lowered."""
    start = text[:characters]
    return lower(start) if start.isupper() else start


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents some hundreds at a time, fewer of long ones."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) >= _BATCH or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (documents, dimensions) as float32 of length 1; zeros stay zeros, and are close to nothing."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


class SemanticFilter(BaseFilter):
    """Drops the documents that were found to repeat another."""

    name = "semantic duplicates"
    REASONS: ClassVar[dict[str, str]] = {
        "semantic_duplicate": "its vector is closer than the threshold to that of an earlier document and, unless both are "
        "short, so is its wording"
    }
    ADVICE: ClassVar[dict[str, str]] = {
        "semantic_duplicate": "look at the pairs, which `dropped/` in the stage's folder names, then raise its threshold (0.75 "
        "is the paper's) or, for long texts, min_overlap; short_words: 0 asks short ones for the same wording too"
    }

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.work = work
        self._close: dict[str, float] = {}
        self._number = -1

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents of shard `rank` that stay."""
        self._close, self._number = orjson.loads(close_path(self.work, rank).read_bytes()), -1
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the next document of the shard stays."""
        self._number += 1
        similarity = self._close.get(str(self._number))
        if similarity is None:
            return True
        doc.metadata |= {"measures": {"similarity": similarity}, "drop_detail": f"cosine {similarity:g}"}
        return False, "semantic_duplicate"
