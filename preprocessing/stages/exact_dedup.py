"""Exact duplicates: of documents with the same text, up to what `turkish.fold` and white space hide, the first stays.

datatrove's exact deduplication in three phases: every shard's sorted hashes, in a fixed number of ranges of hash values;
the repeated ones of each range, by merging all shards' hashes; the filter. Hashes have 64 bits: among a billion
documents that differ, about one chance in forty that two are taken for the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from pydantic import BaseModel, ConfigDict, Field

from mecellem.errors import UserError
from preprocessing.pipeline.layout import StageFolders
from preprocessing.pipeline.phases import Phase, keeping, reading
from preprocessing.turkish import fold

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline

MOST_SHARDS = 65_000  # a document's priority, which says how early its shard is, has 16 bits in datatrove's files
REASONS: dict[str, str] = {
    "exact_duplicate": "the same text stands in an earlier document, up to white space, case, circumflexes and apostrophes"
}
_RANGES = 16  # of hash values: so many tasks look for repeated ones; a constant, or files would grow as shards x ranges


class ExactDedupSettings(BaseModel):
    """Settings of `exact_dedup`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    normalize: bool = Field(
        default=True,
        description="white space, (Turkish) case, circumflexes (kâr, kar) and kinds of apostrophe make no difference",
    )


class InOrderSignature(ExactDedupSignature):
    """datatrove's first block; of equal documents the one in the earliest shard comes first, then the earliest in it."""

    config: ExactDedupConfig

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the sorted hashes of shard `rank`; yields nothing."""
        # datatrove sorts by (hash, priority, number in the shard): without this the shard would make no difference
        priority = MOST_SHARDS - rank
        self.config = dataclasses.replace(self.config, document_priority=lambda _: priority)
        super().run(data, rank, world_size)
        yield from ()


def plain_text(document: Document) -> bytes:
    """The text as it stands."""
    return document.text.encode()


def normalized_text(document: Document) -> bytes:
    """The text with single spaces, folded: what tells two spellings of one text apart is gone."""
    return fold(" ".join(document.text.split())).encode()


def finding(work: Path, shards: int, config: ExactDedupConfig) -> tuple[PipelineStep, Phase, ExactDedupFilter]:
    """The blocks that find repeated contents in `work`: the signature of a shard, the phase that finds, the filter.

    Raises `UserError` for more shards than datatrove's files can tell apart.
    """
    if shards > MOST_SHARDS:
        raise UserError(f"{shards:,} shards are too many to find duplicates among: raise shard_size")
    hashes, repeated = str(work / "hashes"), str(work / "repeated")
    signature = InOrderSignature(hashes, config, finder_workers=_RANGES)
    find = Phase("find", _RANGES, [ExactFindDedups(hashes, repeated, config, lines_to_buffer=4096)])
    return signature, find, ExactDedupFilter(repeated, config)


def phases(settings: ExactDedupSettings, folders: StageFolders) -> list[Phase]:
    """Hash every shard, find repeated hashes, keep the first document of each."""
    config = ExactDedupConfig(content_getter=normalized_text if settings.normalize else plain_text)
    signature, find, keep = finding(folders.work, folders.tasks, config)
    return [reading(folders, "hash", signature), find, keeping(folders, keep, reason="exact_duplicate")]
