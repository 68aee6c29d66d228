"""Exact duplicates: of documents with the same text, up to what `turkish.fold` and white space hide, the first stays.

datatrove's exact deduplication: every shard's sorted hashes, in a fixed number of ranges of hash values; the repeated ones
of each range, by merging all shards' hashes; the filter. Before the filter one task writes down who stays for whom, with
40 bytes of memory for every document that goes. Hashes have 64 bits: among a billion documents that differ, about one
chance in forty that two are taken for the same.
"""

from __future__ import annotations

import dataclasses
import shutil
import struct
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from datatrove.utils.typeshelper import ExtensionHelperSD
from pydantic import BaseModel, ConfigDict, Field

from mecellem.errors import UserError
from preprocessing.pipeline.layout import StageFolders, whole_file
from preprocessing.pipeline.partners import PARTNER, NamePartners, NoteIds, document_id, write_partners
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


class FindPartners(ExactFindDedups):
    """datatrove's second block, which writes who goes; this one writes for whom as well, in `partners_of/`."""

    output_folder: Any

    def __init__(self, hashes: Path, repeated: Path, config: ExactDedupConfig) -> None:
        super().__init__(str(hashes), str(repeated), config, lines_to_buffer=4096)
        self.repeated = repeated

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> None:
        """Write what is repeated in range `rank` of the hash values."""
        shutil.rmtree(self.repeated / f"{rank:05d}", ignore_errors=True)  # of an earlier attempt, when a shard was another
        folder, groups = self.output_folder, _Groups()
        self.output_folder = _Overheard(folder, groups)
        try:
            super().run(data, rank, world_size)
        finally:
            self.output_folder = folder
        with whole_file(_found_path(self.repeated, rank)) as handle:
            np.save(handle, groups.table())


_FOUND = np.dtype([("shard", "<u4"), *((name, PARTNER[name]) for name in PARTNER.names or ())])


class _Groups:
    """Pieces together who goes for whom: datatrove's block tells who goes, then of which document these were copies."""

    def __init__(self) -> None:
        self._numbers = array("I")  # shard, number, kept shard, kept number, again and again
        self._pending = array("I")

    def hear(self, filename: str, data: bytes) -> None:
        """A record that datatrove writes to a file named by its shard."""
        shard, number = int(Path(filename).name.partition(".")[0]), struct.unpack_from("<I", data)[0]
        if filename.endswith(ExtensionHelperSD.stage_2_duplicates):
            self._pending.extend((shard, number))
            return
        for at in range(0, len(self._pending), 2):
            self._numbers.extend((*self._pending[at : at + 2], shard, number))
        del self._pending[:]

    def table(self) -> np.ndarray:
        """All of it, by shard and number."""
        assert not self._pending, "datatrove names every document that has copies"
        numbers = np.frombuffer(self._numbers, np.uint32) if self._numbers else np.empty(0, np.uint32)
        return np.sort(numbers.view(_FOUND), order=("shard", "number"))


class _Overheard:
    """A folder of datatrove whose files `groups` hears of."""

    def __init__(self, folder: Any, groups: _Groups) -> None:
        self._folder = folder
        self._groups = groups

    def get_output_file_manager(self, **settings: Any) -> Any:
        """What datatrove opens, which writes what it is told."""
        manager = self._folder.get_output_file_manager(**settings)
        write = manager.write

        def written(filename: str, data: bytes) -> None:
            self._groups.hear(filename, data)
            write(filename, data)

        manager.write = written
        return manager


class WritePartners(PipelineStep):
    """Puts together, shard by shard, what was found in the ranges."""

    type = "🫂 - DEDUP"
    name = "partners"

    def __init__(self, work: Path, shards: int) -> None:
        super().__init__()
        self.work = work
        self.shards = shards

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write who stays for whom; yields nothing."""
        found = [np.load(_found_path(self.work / "repeated", number), mmap_mode="r") for number in range(_RANGES)]
        bounds = [np.searchsorted(table["shard"], np.arange(self.shards + 1)).tolist() for table in found]
        names = list(PARTNER.names or ())

        def of(shard: int) -> np.ndarray:
            parts = [table[ends[shard] : ends[shard + 1]][names] for table, ends in zip(found, bounds, strict=True)]
            return np.concatenate(parts).astype(PARTNER)

        with self.track_time("task"):
            write_partners(self.work, map(of, range(self.shards)))
        yield from ()


def _found_path(repeated: Path, number: int) -> Path:
    return repeated.with_name("partners_of") / f"{number:05d}.npy"


def hashing(work: Path, config: ExactDedupConfig, name_of: Callable[[Document], str] = document_id) -> list[PipelineStep]:
    """The blocks that write the hashes of a shard, and what names its documents, to `work`."""
    return [NoteIds(work, name_of), InOrderSignature(str(work / "hashes"), config, finder_workers=_RANGES)]


def finding(work: Path, shards: int, config: ExactDedupConfig) -> list[Phase]:
    """The phases that find repeated contents in `work` after all hashes are there.

    Raises `UserError` for more shards than datatrove's files can tell apart.
    """
    if shards > MOST_SHARDS:
        raise UserError(f"{shards:,} shards are too many to find duplicates among: raise shard_size")
    find = FindPartners(work / "hashes", work / "repeated", config)
    return [Phase("find", _RANGES, [find]), Phase("partners", 1, [WritePartners(work, shards)])]


def phases(settings: ExactDedupSettings, folders: StageFolders) -> list[Phase]:
    """Hash every shard, find repeated hashes, keep the first document of each."""
    config = ExactDedupConfig(content_getter=normalized_text if settings.normalize else plain_text)
    keep = [NamePartners(folders.work), ExactDedupFilter(str(folders.work / "repeated"), config)]
    return [
        reading(folders, "hash", *hashing(folders.work, config)),
        *finding(folders.work, folders.tasks, config),
        keeping(folders, *keep, reason="exact_duplicate"),
    ]
