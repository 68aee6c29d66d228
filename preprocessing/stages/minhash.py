"""Near duplicates by MinHash: documents that share most of their runs of words.

datatrove's MinHash in four phases: signatures of every shard, pairs that share one band of their signature, clusters of
such pairs, the filter. With the defaults, FineWeb's (5-grams, 14 bands of 8 hashes), two documents with 75% of their
5-grams in common are a pair with a chance of 77%, with 85% of 99%. One document of a cluster stays, mostly the earliest.

Scale: signatures take 1 kB a document on disk, pairs are found band by band in independent tasks, but clusters are made
by one task in memory, some 300 bytes for every document that has a near duplicate.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.utils.word_tokenizers import WhitespaceTokenizer
from pydantic import BaseModel, ConfigDict, Field

from preprocessing.pipeline.layout import StageFolders
from preprocessing.pipeline.partners import PARTNER, NamePartners, NoteIds, write_partners
from preprocessing.pipeline.phases import Phase, keeping, reading
from preprocessing.turkish import fold, words

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline

REASONS: dict[str, str] = {"near_duplicate": "most of its runs of words stand in another document, which stays"}
_BUFFER = 4096  # signatures read at a time of each shard's file


class MinhashSettings(BaseModel):
    """Settings of `minhash`; the defaults are FineWeb's (arXiv:2406.17557, section 3.4)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    n_grams: int = Field(default=5, ge=1, le=50, description="words in a run; FineWeb: 5")
    bands: int = Field(default=14, ge=1, le=200, description="one equal band makes a pair; FineWeb: 14")
    hashes_per_band: int = Field(default=8, ge=1, le=50, description="hashes that must all be equal; FineWeb: 8")
    seed: int = Field(default=1, ge=0, description="of the hash functions; datatrove: 1")


class TurkishSignature(MinhashDedupSignature):
    """datatrove's signatures over words of text in folded Turkish case, for which its own str.lower() is wrong."""

    def __init__(self, folder: str, config: MinhashConfig) -> None:
        super().__init__(folder, config, language=WhitespaceTokenizer())

    def get_shingles(self, text: str) -> np.ndarray:
        """Hashes of the runs of words, each once; shape (runs, 1). Of bytes: xxhash 4 refuses datatrove's strings."""
        size = self.config.n_grams
        found = words(fold(text))
        runs = {" ".join(found[start : start + size]) for start in range(len(found) - size + 1)}
        return np.fromiter((self._hash_func(run.encode()) for run in runs), np.uint64, len(runs)).reshape(-1, 1)

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the signatures of shard `rank`; yields nothing."""
        super().run(data, rank, world_size)
        yield from ()


class Clusters(MinhashDedupCluster):
    """datatrove's clusters, and which document of each stays for which others."""

    def __init__(self, pairs: str, work: Path, shards: int, config: MinhashConfig) -> None:
        super().__init__(pairs, str(work / "removed"), config, save_cluster_id=True, lines_to_buffer=_BUFFER)
        self.work = work
        self.shards = shards

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write which documents of each shard go, and for whom; yields nothing."""
        super().run(data, rank, world_size)
        stays = self._stays()
        write_partners(self.work, (self._gone(shard, stays) for shard in range(self.shards)))
        yield from ()

    def _stays(self) -> np.ndarray:
        """Shard and number of the document of each cluster that stays, by the cluster's number; shape (clusters, 2)."""
        found = [np.empty((0, 3), np.uint32)]
        for shard in range(self.shards):
            numbers, clusters, goes = self._clustered(shard)
            found.append(np.stack((clusters, np.full_like(clusters, shard), numbers), axis=1)[~goes])
        table = np.concatenate(found)
        assert len(np.unique(table[:, 0])) == len(table), "one document of a cluster stays"
        return table[np.argsort(table[:, 0]), 1:]

    def _gone(self, shard: int, stays: np.ndarray) -> np.ndarray:
        numbers, clusters, goes = self._clustered(shard)
        gone = np.empty(int(goes.sum()), PARTNER)
        gone["number"], kept = numbers[goes], stays[clusters[goes]]
        gone["kept_shard"], gone["kept_number"] = kept[:, 0], kept[:, 1]
        return gone

    def _clustered(self, shard: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the documents of a shard that are in clusters: number, cluster, and whether it goes."""
        table, removed = (_numbers(self.work / "removed" / f"{shard:06d}.{ending}") for ending in ("clusters", "remove"))
        numbers, clusters = table.reshape(-1, 2).T
        return numbers, clusters, np.isin(numbers, removed)


def _numbers(path: Path) -> np.ndarray:
    """What datatrove wrote for a shard; it writes no file where there is nothing to tell."""
    return np.fromfile(path, "<u4") if path.exists() else np.empty(0, np.uint32)


def phases(settings: MinhashSettings, folders: StageFolders) -> list[Phase]:
    """Signatures, pairs, clusters, filter."""
    config = MinhashConfig(
        n_grams=settings.n_grams,
        num_buckets=settings.bands,
        hashes_per_bucket=settings.hashes_per_band,
        seed=settings.seed,
    )
    signatures, pairs = (str(folders.work / name) for name in ("signatures", "pairs"))
    find = MinhashDedupBuckets(signatures, pairs, config=config, lines_to_buffer=_BUFFER)
    return [
        reading(folders, "signatures", NoteIds(folders.work), TurkishSignature(signatures, config)),
        Phase("pairs", settings.bands, [find]),
        Phase("clusters", 1, [Clusters(pairs, folders.work, folders.tasks, config)]),
        keeping(
            folders, NamePartners(folders.work), MinhashDedupFilter(str(folders.work / "removed")), reason="near_duplicate"
        ),
    ]
