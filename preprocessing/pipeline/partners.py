"""Which document stays in the place of one that goes: datatrove's searches for duplicates only say who goes.

A search writes down, shard by shard, the number of every document that goes and the shard and number of the one that stays
(`write_partners`); the last phase names it (`NamePartners`). The ids are noted when the documents pass by for the first time
(`NoteIds`), and only those of documents that stay for another are kept. All of it is linear in documents and shards.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import orjson
import zstandard
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline

# a document that goes by its number in its shard, and the one that stays; structured, so that an array of them is a table
PARTNER = np.dtype([("number", "<u4"), ("kept_shard", "<u4"), ("kept_number", "<u4")])


def document_id(document: Document) -> str:
    """What names a document in examples and lists."""
    return document.id


def document_origin(document: Document) -> str:
    """Where a document came from, which tells documents of one id apart."""
    return document.metadata["origin"]


class NoteIds(PipelineStep):
    """Passes the documents of a shard on and writes what names each of them to `work`."""

    type = "🫂 - DEDUP"
    name = "ids"

    def __init__(self, work: Path, name_of: Callable[[Document], str] = document_id) -> None:
        super().__init__()
        self.work = work
        self.name_of = name_of

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield all documents of shard `rank`; its ids are there when the last one has passed."""
        with _file(_ids_path(self.work, rank)) as handle, zstandard.ZstdCompressor(level=1).stream_writer(handle) as writer:
            for document in data:
                writer.write(orjson.dumps(self.name_of(document), option=orjson.OPT_APPEND_NEWLINE))
                yield document


def write_partners(work: Path, gone: Iterable[np.ndarray]) -> None:
    """Write who goes for whom, of each shard in order: arrays of `PARTNER`, whose shards `NoteIds` has seen all.

    Memory: some 40 bytes a document that goes.
    """
    keys, counts, ends = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [0]
    with _file(work / "partners" / "table") as handle:
        for partners in gone:
            handle.write(np.sort(partners, order="number").tobytes())
            here, times = np.unique(_key(partners["kept_shard"], partners["kept_number"]), return_counts=True)
            keys.append(here)
            counts.append(times)
            ends.append(ends[-1] + len(partners))
    kept, places = np.unique(np.concatenate(keys), return_inverse=True)
    sums = np.bincount(places, np.concatenate(counts), len(kept))
    for name, values in (("ends", np.array(ends)), ("kept", kept), ("counts", sums.astype(np.int64))):
        _save(work / "partners" / f"{name}.npy", values)
    _write_names(work, kept, len(ends) - 1)


def _write_names(work: Path, kept: np.ndarray, shards: int) -> None:
    name_ends = np.zeros(len(kept) + 1, np.int64)
    bounds = np.searchsorted(kept, _key(np.arange(shards + 1), 0))
    with _file(work / "partners" / "names") as handle:
        for shard, (first, last) in enumerate(pairwise(bounds.tolist())):
            wanted = (kept[first:last] & np.uint64(0xFFFFFFFF)).tolist()
            for place, name in enumerate(_names_of(work, shard, wanted), start=first):
                handle.write(name)
                name_ends[place + 1] = name_ends[place] + len(name)
    _save(work / "partners" / "name_ends.npy", name_ends)


def _names_of(work: Path, shard: int, numbers: Sequence[int]) -> Iterator[bytes]:
    """The names, as UTF-8, of documents of a shard; `numbers` are sorted."""
    if not numbers:
        return
    wanted = iter(numbers)
    number = next(wanted)
    with zstandard.open(_ids_path(work, shard), "rb") as stream, io.BufferedReader(stream) as lines:
        for at, line in enumerate(lines):
            if at == number:
                yield orjson.loads(line).encode()
                if (following := next(wanted, None)) is None:
                    return
                number = following
    raise AssertionError(f"shard {shard} has no document {number}")


class Partners:
    """What `write_partners` wrote: names and counts of the documents that stay, and who goes for them."""

    def __init__(self, work: Path) -> None:
        self._folder = work / "partners"

    def of(self, shard: int) -> tuple[dict[int, tuple[str, int]], dict[int, int]]:
        """The documents of a shard, by number: who goes, with the name of the one that stays and how many go for it; who stays.

        The latter with how many go for them.
        """
        kept, counts = self._load("kept"), self._load("counts")
        first, last = np.searchsorted(kept, _key(np.array([shard, shard + 1]), 0))
        stays = zip((kept[first:last] & np.uint64(0xFFFFFFFF)).tolist(), counts[first:last].tolist(), strict=True)
        start, end = self._load("ends")[shard : shard + 2].tolist()
        partners = np.fromfile(self._folder / "table", PARTNER, end - start, offset=start * PARTNER.itemsize)
        places = np.searchsorted(kept, _key(partners["kept_shard"], partners["kept_number"]))
        named = zip(partners["number"].tolist(), self._names(places), counts[places].tolist(), strict=True)
        return {number: (name, count) for number, name, count in named}, dict(stays)

    def _names(self, places: np.ndarray) -> Iterator[str]:
        ends = self._load("name_ends")
        with open(self._folder / "names", "rb") as handle:
            for first, last in zip(ends[places].tolist(), ends[places + 1].tolist(), strict=True):
                handle.seek(first)
                yield handle.read(last - first).decode()

    def _load(self, name: str) -> np.ndarray:
        return np.load(self._folder / f"{name}.npy", mmap_mode="r")


class NamePartners(PipelineStep):
    """Tells each document that is to go who stays for it, before a filter drops it: `duplicate_of` and `duplicate_count`."""

    type = "🫂 - DEDUP"
    name = "partners"

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.work = work

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield all documents of shard `rank`."""
        goes, stays = Partners(self.work).of(rank)
        for number, document in enumerate(data):
            if number in goes:
                document.metadata["duplicate_of"], document.metadata["duplicate_count"] = goes[number]
            elif number in stays:
                document.metadata["duplicate_count"] = stays[number]
            yield document


def _key(shard: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """Shard and number as one value that sorts as the corpus does."""
    return (shard.astype(np.uint64) << np.uint64(32)) | np.asarray(number, np.uint64)


def _ids_path(work: Path, shard: int) -> Path:
    return work / "ids" / f"{shard:05d}.zst"


@contextmanager
def _file(path: Path) -> Iterator[IO[bytes]]:
    """A file of a phase that is done again, and writes it again, unless it came to its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as handle:
        yield handle


def _save(path: Path, values: np.ndarray) -> None:
    with _file(path) as handle:
        np.save(handle, values)
