"""Close vectors out of several shards and cells, beside an exact search of all pairs."""

import json

import numpy as np
import pytest
from datatrove.data import Document

from preprocessing.pipeline.layout import StageFolders
from preprocessing.pipeline.partners import NoteIds, Partners
from preprocessing.stages import vector_cells
from preprocessing.stages.overlap import Overlap
from preprocessing.stages.vector_cells import (
    PAIR,
    Rows,
    by_cell,
    close_path,
    decide,
    first_of_close,
    nearest_cells,
    phases,
    sketches_path,
    vectors_path,
)

VECTORS_ONLY = Overlap(least=0, short_words=0, run_words=3)
WORDING = Overlap(least=0.5, short_words=0, run_words=1)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(documents, close, seed=5):
    """Vectors around 12 topics; `close` of them, anywhere, are near another one."""
    random = np.random.default_rng(seed)
    topics = unit(random.normal(size=(12, 32)))
    vectors = unit(0.7 * topics[random.integers(12, size=documents)] + 0.9 * unit(random.normal(size=(documents, 32))))
    copies, of = random.choice(documents, close, replace=False), random.choice(documents, close)
    vectors[copies] = unit(vectors[of] + 0.25 * unit(random.normal(size=(close, 32))))
    return vectors


def found(folder, vectors, shards, threshold, probes=16, order=reversed, overlap=VECTORS_ONLY, texts=None):
    """The documents that go, with their similarity; the tasks of each phase are done in `order`."""
    folders = StageFolders(folder, folder, shards)
    for name in ("vectors", "sketches"):
        (folders.work / name).mkdir(parents=True)
    sketches = overlap.sketches(texts or [""] * len(vectors))
    numbers = np.array_split(np.arange(len(vectors)), shards)
    for shard, rows in enumerate(numbers):
        np.save(vectors_path(folders.work, shard), vectors[rows] if len(rows) else np.empty((0, 0), np.float32))
        np.save(sketches_path(folders.work, shard), sketches[rows])
        list(NoteIds(folders.work).run((Document("", str(row)) for row in rows), shard))
    for phase in phases(folders, threshold, probes, overlap):
        for rank in order(range(phase.tasks)):
            assert list(phase.pipeline[0].run(None, rank, phase.tasks)) == []
    gone, first = {}, 0
    for shard, part in enumerate(np.array_split(vectors, shards)):
        gone |= {first + int(row): value for row, value in json.loads(close_path(folders.work, shard).read_bytes()).items()}
        first += len(part)
    return gone


def stays_by_hand(vectors, threshold):
    """Who stays when one after another goes that is close to an earlier one that stays."""
    stays = np.ones(len(vectors), bool)
    for row in range(1, len(vectors)):
        stays[row] = not (vectors[:row][stays[:row]] @ vectors[row] >= threshold).any()
    return stays


def test_in_one_cell_all_pairs_are_compared_over_all_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_cells, "_ROWS", 100)
    vectors = clustered(250, 60)
    gone = found(tmp_path, vectors, 7, 0.9)
    stays = stays_by_hand(vectors, 0.9)
    assert 40 < len(gone) < 70
    assert sorted(gone) == np.flatnonzero(~stays).tolist()
    for row, similarity in gone.items():
        assert similarity == pytest.approx((vectors[:row][stays[:row]] @ vectors[row]).max(), abs=1e-4)


def test_in_many_cells_next_to_nothing_is_missed_and_nobody_goes_for_one_who_went(tmp_path):
    vectors = clustered(6000, 1500)
    gone = found(tmp_path, vectors, 5, 0.8)
    assert len(np.load(tmp_path / "work" / "centres.npy")) == 24
    stays = np.array([row not in gone for row in range(len(vectors))])
    exact = stays_by_hand(vectors, 0.8)
    assert (~exact).sum() > 1000
    assert (stays & ~exact).sum() < 0.01 * (~exact).sum()
    for row in gone:
        assert (vectors[:row][stays[:row]] @ vectors[row]).max() >= 0.8 - 1e-6
    one = found(tmp_path / "one", vectors, 5, 0.8, probes=1)
    assert len(one) < len(gone)


def test_the_order_of_tasks_and_the_cut_into_shards_change_nothing(tmp_path):
    vectors = clustered(1500, 400)
    first = found(tmp_path / "a", vectors, 4, 0.85)
    assert first == found(tmp_path / "b", vectors, 4, 0.85, order=list)
    assert first == found(tmp_path / "c", vectors, 1, 0.85)


def test_copies_of_one_document_need_no_square_of_pairs(tmp_path):
    vectors = np.repeat(clustered(1, 0), 5000, axis=0)
    assert sorted(found(tmp_path, vectors, 2, 0.75)) == list(range(1, 5000))
    pairs = sum(len(np.load(path)) for path in (tmp_path / "work" / "pairs").glob("*.npy"))
    assert pairs < 20 * 5000


def test_empty_shards_and_vectors_without_direction_are_close_to_nothing(tmp_path):
    assert found(tmp_path / "none", np.empty((0, 8), np.float32), 3, 0.5) == {}
    vectors = np.zeros((6, 8), np.float32)
    vectors[[1, 4], 2] = 1
    assert found(tmp_path / "some", vectors, 9, 0.5) == {4: 1.0}


def rows_of(vectors, sketches=None):
    return Rows(np.arange(len(vectors)), vectors, np.empty((len(vectors), 0), np.uint8) if sketches is None else sketches)


def test_documents_go_only_with_one_that_stays_and_not_by_a_chain():
    angles = np.array([0.0, 0.5, 1.0, 3.0, 0.1])  # cosines: 0-1 0.88, 1-2 0.88, 0-2 0.54
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert first_of_close(rows_of(vectors), 0.75, VECTORS_ONLY).tolist() == [True, False, True, True, False]
    pairs = np.array([(2, 1, 0.8), (1, 0, 0.9), (4, 2, 0.8), (4, 0, 0.76), (5, 1, 0.99), (6, 0, 0.8), (6, 2, 0.8)], PAIR)
    gone = decide(pairs, 7)
    assert gone.later.tolist() == [1, 4, 6]
    assert gone.kept.tolist() == [0, 2, 0]
    assert gone.similarity == pytest.approx([0.9, 0.8, 0.8])


def test_without_a_check_of_the_wording_the_result_is_semhashs():
    from semhash import SemHash
    from semhash.index import Index

    vectors = clustered(800, 300)
    items = [[{"row": str(row)}] for row in range(len(vectors))]
    semhash = SemHash(Index.from_vectors_and_items(vectors, items, "basic"), None, ["row"], was_string=True)
    stays = np.flatnonzero(first_of_close(rows_of(vectors), 0.85, VECTORS_ONLY)).tolist()
    assert stays == [int(row) for row in semhash.self_deduplicate(0.85).selected]
    assert 400 < len(stays) < 700


@pytest.mark.parametrize("documents", [200, 1200])  # of one cell, of several
def test_of_equal_vectors_those_of_another_wording_stay_and_copies_of_any_of_them_go(tmp_path, documents):
    topics = clustered(3, 0)
    vectors = topics[np.arange(documents) % 3]
    wordings = [number if number % 4 else number // 40 for number in range(documents)]  # every fourth repeats an earlier one
    texts = [" ".join(f"{letter}{number % 3}x{wording}" for letter in "abcdef") for number, wording in enumerate(wordings)]
    first = {}
    expected = {number for number, text in enumerate(texts) if first.setdefault(text, number) != number}
    gone = found(tmp_path / "a", vectors, 4, 0.9, overlap=WORDING, texts=texts)
    assert set(gone) == expected and len(expected) > documents / 8
    assert gone == found(tmp_path / "b", vectors, 4, 0.9, overlap=WORDING, texts=texts, order=list)
    assert gone == found(tmp_path / "c", vectors, 1, 0.9, overlap=WORDING, texts=texts)
    goes, stays = Partners(tmp_path / "c" / "work").of(0)
    assert {number: int(name) for number, (name, _) in goes.items()} == {number: first[texts[number]] for number in expected}
    assert stays[0] == goes[next(number for number in sorted(goes) if goes[number][0] == "0")][1]
    assert sum(stays.values()) == len(expected)


def test_rows_are_listed_by_the_cell_they_live_in_and_by_those_that_they_visit():
    centres = unit(np.array([[1, 0], [0, 1], [-1, 0.1]], np.float32))
    nearest = nearest_cells(unit(np.array([[1, 0.1], [-1, 0.2], [0.1, 1]], np.float32)), centres, 2)
    assert nearest.tolist() == [[0, 1], [2, 1], [1, 0]]
    assert by_cell(nearest, 3).tolist() == [7, 8, 9, 10, 11, 13, 13, 0, 2, 1, 2, 0, 1]
