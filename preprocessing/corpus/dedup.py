"""Which documents say the same: exact Jaccard similarity of their word pairs, by one sparse matrix product.

For the sample's 10^5 documents the exact answer is cheaper than MinHash (0.5 s against 19 s with datasketch and 128
permutations on 2 cores) and has neither missed pairs nor a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.corpus.clean import words_of
from preprocessing.corpus.document import Document

# From here on two documents are one text printed twice: only the longer stays. Two dictionary entries that share a
# template ("X: Konya iline bağlı ilçelerden biri") reach 0.7 and are different entries.
DUPLICATE = 0.8
# From here on they go to the same split. Two printings of one old speech in different spellings reach only 0.3 to 0.6,
# unrelated long documents stay below 0.2; a short entry reaches 0.3 by its template alone.
RELATED_LONG = 0.25
RELATED_SHORT = 0.5
LONG = 60  # word pairs
# A pair of words that more documents than this share says nothing, and would make the product quadratic.
_TOO_COMMON = 2000
# An example or definition of this many words which stands in two entries ties them together.
_SENTENCE_WORDS = 4
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Clusters:
    """`keep[i]`: whether document i stays; `cluster[i]`: its cluster, the smallest id in it; both by document order."""

    keep: NDArray[np.bool_]
    cluster: list[str]
    near_duplicates: int
    clusters_of_several: int
    largest_cluster: int


def find_clusters(documents: Sequence[Document]) -> Clusters:
    """Drop all but the longest of near duplicates and tie what is related into clusters (see the thresholds above)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second, similarity, long_pair = _similar_pairs(documents)
    keep = _greedy_keep(documents, first, second, similarity)
    related = similarity >= np.where(long_pair, RELATED_LONG, RELATED_SHORT)
    shared = _sharing_a_sentence(documents)
    rows = np.concatenate([first[related], shared[:, 0]])
    columns = np.concatenate([second[related], shared[:, 1]])
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(documents), len(documents)))
    count, labels = connected_components(graph, directed=False)

    names: list[str] = [""] * count
    for document, label in zip(documents, labels, strict=True):
        if not names[label] or document.id < names[label]:
            names[label] = document.id
    sizes = np.bincount(labels, minlength=count) if len(documents) else np.zeros(0, np.int64)
    return Clusters(
        keep=keep,
        cluster=[names[label] for label in labels],
        near_duplicates=int((~keep).sum()),
        clusters_of_several=int((sizes > 1).sum()),
        largest_cluster=int(sizes.max(initial=0)),
    )


def _similar_pairs(
    documents: Sequence[Document],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """(i, j, Jaccard, both long) of every pair i < j with a Jaccard similarity of at least RELATED_LONG."""
    from scipy.sparse import csr_array

    identities: dict[tuple[str, ...], int] = {}
    columns: list[int] = []
    ends = [0]
    for document in documents:
        words = words_of(document.text)
        pairs = {identities.setdefault(tuple(words[i : i + 2]), len(identities)) for i in range(max(1, len(words) - 1))}
        columns.extend(pairs)
        ends.append(len(columns))
    sizes = np.diff(ends)
    matrix = csr_array((np.ones(len(columns), np.int32), columns, ends), shape=(len(documents), max(1, len(identities))))
    matrix = matrix[:, np.bincount(columns, minlength=matrix.shape[1]) <= _TOO_COMMON]
    transposed = matrix.T.tocsr()

    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    for start in range(0, len(documents), _ROWS_AT_ONCE):
        shared = (matrix[start : start + _ROWS_AT_ONCE] @ transposed).tocoo()
        i, j = shared.coords[0].astype(np.int64) + start, shared.coords[1].astype(np.int64)
        similarity = shared.data / (sizes[i] + sizes[j] - shared.data)
        wanted = (i < j) & (similarity >= RELATED_LONG)
        found.append((i[wanted], j[wanted], similarity[wanted]))
    first, second, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, similarity, np.minimum(sizes[first], sizes[second]) >= LONG


def _greedy_keep(
    documents: Sequence[Document],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    similarity: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """From the longest document down (then by id): a document stays unless one that stays is its near duplicate."""
    twins: dict[int, list[int]] = {}
    same = similarity >= DUPLICATE
    for i, j in zip(first[same].tolist(), second[same].tolist(), strict=True):
        twins.setdefault(i, []).append(j)
        twins.setdefault(j, []).append(i)
    keep = np.ones(len(documents), np.bool_)
    decided: set[int] = set()
    for index in sorted(twins, key=lambda index: (-len(documents[index].text), documents[index].id)):
        keep[index] = not any(twin in decided and keep[twin] for twin in twins[index])
        decided.add(index)
    return keep


def _sharing_a_sentence(documents: Sequence[Document]) -> NDArray[np.int64]:
    """Pairs (n, 2) of documents that hold the same definition or example; each is tied to the first that holds it."""
    holder: dict[tuple[str, ...], int] = {}
    pairs = []
    for index, document in enumerate(documents):
        for sentence in (*document.definitions, *document.examples):
            words = tuple(words_of(sentence))
            if len(words) >= _SENTENCE_WORDS and holder.setdefault(words, index) != index:
                pairs.append((holder[words], index))
    return np.array(pairs, np.int64).reshape(-1, 2)
