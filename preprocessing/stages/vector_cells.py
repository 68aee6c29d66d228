"""Close vectors among all documents of a corpus: cells of near vectors are searched by semhash, one after another.

As in SemDeDup (arXiv:2303.09540), k-means cuts the vectors into cells. SemDeDup compares within a cell only; here a
document lives in its nearest cell and is also looked for in the next `probes - 1` of them, or a third of what is close would be
missed. In every cell semhash finds the leaders, documents that repeat no earlier one that lives there, and then who else
repeats a leader. A document repeats another if their vectors are close and their wording agrees (`overlap`). What goes is
decided at the end, from first to last over the whole corpus: a document goes if it repeats an earlier one that stays.

A corpus of one cell (256 documents) is compared exactly. Of more, a few documents stay whose only close one is across the
border of their cells: docs/decisions/0019 has the measured share.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from threadpoolctl import threadpool_limits

from preprocessing.pipeline.layout import StageFolders, whole_file, write_whole
from preprocessing.pipeline.partners import PARTNER, write_partners
from preprocessing.pipeline.phases import Phase
from preprocessing.stages.overlap import Overlap

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline

PAIR = np.dtype([("later", "<i8"), ("earlier", "<i8"), ("similarity", "<f4")])  # documents by number in the corpus
_CELL = 256  # documents of a mean cell: small cells and many probes miss less for the same work
_MOST_CELLS = 16_384  # up to 4 million documents the work grows as the corpus does; above, cells grow as well
_SAMPLE = 16  # vectors a centre is made of
_ROUNDS = 8
_ROWS = 2048  # vectors compared at a time
_LEAST_TASKS, _MOST_TASKS = 16, 64  # a constant beyond 64 shards, or opened files would grow as shards x tasks


class Rows(NamedTuple):
    """Documents: their numbers in the corpus, their vectors and the sketches of their wording."""

    numbers: np.ndarray
    vectors: np.ndarray
    sketches: np.ndarray

    def of(self, which: np.ndarray) -> Rows:
        """Some of them."""
        return Rows(*(values[which] for values in self))


def joined(parts: Iterable[Rows]) -> Rows:
    """All of them, in order."""
    return Rows(*map(np.concatenate, zip(*parts, strict=True)))


def vectors_path(work: Path, shard: int) -> Path:
    """Unit vectors of a shard's documents, float32 (documents, dimensions)."""
    return work / "vectors" / f"{shard:05d}.npy"


def sketches_path(work: Path, shard: int) -> Path:
    """What `Overlap.agree` compares of a shard's documents, uint8 (documents, bytes)."""
    return work / "sketches" / f"{shard:05d}.npy"


def close_path(work: Path, shard: int) -> Path:
    """Which documents of a shard go, by their number in it, with their similarity to the closest one that stays."""
    return work / "close" / f"{shard:05d}.json"


def phases(folders: StageFolders, threshold: float, probes: int, overlap: Overlap) -> list[Phase]:
    """From `vectors_path`, `sketches_path` and the noted ids of every shard to its `close_path` and its partners."""
    tasks = max(_LEAST_TASKS, min(folders.tasks, _MOST_TASKS))
    return [
        Phase("centres", 1, [FindCentres(folders)]),
        Phase("cells", folders.tasks, [AssignCells(folders, probes)]),
        Phase("search", tasks, [SearchCells(folders, threshold, overlap)]),
        Phase("decide", 1, [Decide(folders)]),
    ]


def one_thread() -> threadpool_limits:
    """Sums of vectors by one thread: the last bits of several threads' sums depend on how many there are."""
    return threadpool_limits(1)


class _Block(PipelineStep):
    """One of the phases."""

    type = "🫂 - DEDUP"

    def __init__(self, folders: StageFolders) -> None:
        super().__init__()
        self.folders = folders
        self.work = folders.work

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Do task `rank` and write its files; yields nothing."""
        with self.track_time("task"), one_thread():
            self.work_on(rank, world_size)
        yield from ()

    @abstractmethod
    def work_on(self, rank: int, tasks: int) -> None:
        """Write the files of task `rank` of `tasks`."""

    def vectors(self, shard: int) -> np.ndarray:
        return np.load(vectors_path(self.work, shard), mmap_mode="r")


class FindCentres(_Block):
    """Numbers the documents and finds the cells' centres, by k-means on an even sample."""

    name = "centres"

    def work_on(self, rank: int, tasks: int) -> None:
        """Write `firsts.npy` (shards + 1), the number of each shard's first document, and `centres.npy` (cells, dimensions)."""
        shards = [self.vectors(shard) for shard in range(self.folders.tasks)]
        firsts = np.cumsum([0, *map(len, shards)], dtype=np.int64)
        cells = min(_MOST_CELLS, max(1, math.ceil(firsts[-1] / _CELL)))
        step = max(1, int(firsts[-1]) // (cells * _SAMPLE))
        sample = [np.asarray(vectors[-first % step :: step]) for vectors, first in zip(shards, firsts, strict=False)]
        full = [part for part in sample if len(part)]
        centres = find_centres(np.concatenate(full), cells) if full else np.zeros((1, 0), np.float32)
        _save(self.work / "firsts.npy", firsts)
        _save(self.work / "centres.npy", centres)


def find_centres(vectors: np.ndarray, cells: int) -> np.ndarray:
    """Unit centres (cells, dimensions) of unit vectors, by a few rounds of k-means; the same for the same vectors."""
    centres = vectors[:: max(1, len(vectors) // cells)][:cells].copy()
    for _ in range(_ROUNDS):
        sums = np.zeros(centres.shape)
        for at in range(0, len(vectors), _ROWS):
            rows = vectors[at : at + _ROWS]
            np.add.at(sums, (rows @ centres.T).argmax(axis=1), rows)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # a centre that nothing is near to stays where it was
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres).astype(np.float32)
    return centres


class AssignCells(_Block):
    """Finds the nearest cells of a shard's documents."""

    name = "cells"

    def __init__(self, folders: StageFolders, probes: int) -> None:
        super().__init__(folders)
        self.probes = probes

    def work_on(self, rank: int, tasks: int) -> None:
        """Write who lives in each cell and who is looked for there."""
        vectors, centres = self.vectors(rank), np.load(self.work / "centres.npy")
        nearest = nearest_cells(vectors, centres, self.probes)
        _save(_members_path(self.work, rank), by_cell(nearest, len(centres)))


def nearest_cells(vectors: np.ndarray, centres: np.ndarray, probes: int) -> np.ndarray:
    """The nearest cells of each vector, the nearest first: (vectors, probes or as many as there are)."""
    probes = min(probes, len(centres))
    nearest = np.empty((len(vectors), probes), np.int32)
    for at in range(0, len(vectors), _ROWS):
        distances = -(vectors[at : at + _ROWS] @ centres.T)
        near = np.argpartition(distances, probes - 1, axis=1)[:, :probes]
        order = np.argsort(np.take_along_axis(distances, near, axis=1), axis=1, kind="stable")
        nearest[at : at + _ROWS] = np.take_along_axis(near, order, axis=1)
    return nearest


def by_cell(nearest: np.ndarray, cells: int) -> np.ndarray:
    """Rows by the cell that they live in, then by the cells where they are guests, as one int32 array.

    Before the rows stand the places in the array where the rows of each cell begin: of those who live in it, of its guests,
    and the end, (2 x cells + 1) in all.
    """
    owner = np.concatenate((nearest[:, :1].ravel(), cells + nearest[:, 1:].ravel()))
    row = np.concatenate((np.arange(len(nearest)), np.repeat(np.arange(len(nearest)), nearest.shape[1] - 1)))
    starts = np.cumsum([2 * cells + 1, *np.bincount(owner, minlength=2 * cells)])
    return np.concatenate((starts, row[np.argsort(owner, kind="stable")])).astype(np.int32)


class SearchCells(_Block):
    """Finds close documents in every so many-th cell."""

    name = "semhash"

    def __init__(self, folders: StageFolders, threshold: float, overlap: Overlap) -> None:
        super().__init__(folders)
        self.threshold = threshold
        self.overlap = overlap

    def work_on(self, rank: int, tasks: int) -> None:
        """Write the pairs of close documents."""
        cells = len(np.load(self.work / "centres.npy", mmap_mode="r"))
        found = [np.empty(0, PAIR)]
        if rank < cells:
            members = _Members(self.work, self.folders.tasks, cells)
            for cell in range(rank, cells, tasks):
                found += search_cell(members.of(cell), members.of(cells + cell), self.threshold, self.overlap)
        _save(_pairs_path(self.work, rank), np.concatenate(found))


class _Members:
    """The documents of cells, out of all shards' files, which are opened once."""

    def __init__(self, work: Path, shards: int, cells: int) -> None:
        self._firsts = np.load(work / "firsts.npy")
        self._vectors, self._sketches, self._members = (
            [np.load(path(work, shard), mmap_mode="r") for shard in range(shards)]
            for path in (vectors_path, sketches_path, _members_path)
        )

    def of(self, owner: int) -> Iterator[Rows]:
        """Those who live in a cell (its number), or its guests (cells + its number), about `_ROWS` at a time, in order."""
        parts: list[Rows] = []
        held = 0
        for shard, members in enumerate(self._members):
            rows = members[members[owner] : members[owner + 1]]
            for at in range(0, len(rows), _ROWS):
                some = rows[at : at + _ROWS]
                parts.append(Rows(self._firsts[shard] + some, self._vectors[shard][some], self._sketches[shard][some]))
                held += len(some)
                if held >= _ROWS:
                    yield joined(parts)
                    parts, held = [], 0
        if held:
            yield joined(parts)


def search_cell(home: Iterable[Rows], guests: Iterable[Rows], threshold: float, overlap: Overlap) -> list[np.ndarray]:
    """`PAIR`s of a leader among those who live in a cell and anyone in it; both come in order, in blocks."""
    leaders: Rows | None = None
    found: list[np.ndarray] = []
    for block in home:
        new = np.ones(len(block.numbers), bool)
        if leaders is not None:
            new = ~np.isin(block.numbers, close_pairs(leaders, block, threshold, overlap)["later"])
        new[new] = first_of_close(block.of(new), threshold, overlap)
        leaders = joined(([leaders] if leaders else []) + [block.of(new)])
        found.append(close_pairs(leaders, block, threshold, overlap))
    if leaders is not None:
        found += [close_pairs(leaders, block, threshold, overlap) for block in guests]
    return found


def close_pairs(leaders: Rows, others: Rows, threshold: float, overlap: Overlap) -> np.ndarray:
    """`PAIR`s of one of the leaders and one of the others, one of which repeats the other; nobody with himself.

    All at once: semhash's own query of an index makes two lists a document, which takes longer than the products.
    """
    similarities = others.vectors @ leaders.vectors.T
    other, leader = np.nonzero(similarities >= threshold)
    two = others.numbers[other] != leaders.numbers[leader]
    return _agreeing(others, leaders, other[two], leader[two], similarities[other[two], leader[two]], overlap)


def _agreeing(ones: Rows, others: Rows, one: np.ndarray, other: np.ndarray, values: np.ndarray, overlap: Overlap) -> np.ndarray:
    """`PAIR`s of documents whose vectors are close, without those whose wording does not agree."""
    agree = overlap.agree(ones.sketches, others.sketches, one, other)
    here, there = ones.numbers[one[agree]], others.numbers[other[agree]]
    pairs = np.empty(len(here), PAIR)
    pairs["later"], pairs["earlier"] = np.maximum(here, there), np.minimum(here, there)
    pairs["similarity"] = values[agree]
    return pairs


def first_of_close(rows: Rows, threshold: float, overlap: Overlap) -> np.ndarray:
    """Whether each document stays when those go that repeat an earlier one that stays; semhash's index, compared exactly."""
    from semhash.index import Index

    stays = np.ones(len(rows.numbers), bool)
    if len(stays):
        index = Index.from_vectors_and_items(rows.vectors, [], "basic")
        found = index.query_threshold(rows.vectors, threshold)
        later, earlier = (
            np.repeat(np.arange(len(found)), [len(near) for near, _ in found]),
            np.concatenate([n for n, _ in found]),
        )
        before = earlier < later
        values = np.concatenate([similarities for _, similarities in found])[before]
        places = rows._replace(numbers=np.arange(len(stays)))
        pairs = _agreeing(places, places, later[before], earlier[before], values, overlap)
        stays[decide(pairs, len(stays)).later] = False
    return stays


class Decide(_Block):
    """Goes through the pairs in the order of the corpus: who repeats an earlier one that stays, goes."""

    name = "decide"

    def work_on(self, rank: int, tasks: int) -> None:
        """Write which documents of each shard go, and for which one that stays."""
        firsts = np.load(self.work / "firsts.npy")
        pairs = np.concatenate([np.load(path) for path in sorted((self.work / "pairs").glob("*.npy"))])
        gone = decide(pairs, int(firsts[-1]))
        shards = [slice(*np.searchsorted(gone.later, bounds)) for bounds in pairwise(firsts)]
        for shard, here in enumerate(shards):
            values = zip((gone.later[here] - firsts[shard]).tolist(), gone.similarity[here].tolist(), strict=True)
            write_whole(close_path(self.work, shard), {str(number): round(value, 4) for number, value in values})
        write_partners(self.work, (_partners(gone, here, firsts, shard) for shard, here in enumerate(shards)))


def _partners(gone: Gone, here: slice, firsts: np.ndarray, shard: int) -> np.ndarray:
    """`PARTNER`s of the documents of one shard that go."""
    kept_shard = np.searchsorted(firsts, gone.kept[here], side="right") - 1
    partners = np.empty(len(kept_shard), PARTNER)
    partners["number"] = gone.later[here] - firsts[shard]
    partners["kept_shard"], partners["kept_number"] = kept_shard, gone.kept[here] - firsts[kept_shard]
    return partners


class Gone(NamedTuple):
    """Numbers of the documents that go, in order, and of the closest one that stays before each, with the similarity."""

    later: np.ndarray
    kept: np.ndarray
    similarity: np.ndarray


def decide(pairs: np.ndarray, documents: int) -> Gone:
    """Which documents go, of `PAIR`s of which one repeats the other; of equally close ones the earliest stands for it."""
    pairs = pairs[np.lexsort((pairs["earlier"], pairs["later"]))]
    starts = np.flatnonzero(np.diff(pairs["later"], prepend=-1))
    gone = np.zeros(documents, bool)
    chosen = []
    for start, end in pairwise([*starts.tolist(), len(pairs)]):
        stays = ~gone[pairs["earlier"][start:end]]
        if stays.any():
            gone[pairs["later"][start]] = True
            chosen.append(start + int(np.where(stays, pairs["similarity"][start:end], -np.inf).argmax()))
    best = pairs[np.array(chosen, np.int64)]
    return Gone(best["later"], best["earlier"], best["similarity"])


def _members_path(work: Path, shard: int) -> Path:
    return work / "members" / f"{shard:05d}.npy"


def _pairs_path(work: Path, task: int) -> Path:
    return work / "pairs" / f"{task:05d}.npy"


def _save(path: Path, values: np.ndarray) -> None:
    with whole_file(path) as handle:
        np.save(handle, values)
