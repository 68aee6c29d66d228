"""Rows out of pieces: what the vectorised sums give is what a plain loop gives, in fp32, whatever the type of the tensor."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.clone import combination as module
from conversion.clone.alignment import Alignment, Kind
from conversion.clone.combination import Composer, RandomRows, combine, replaced
from conversion.clone.pursuit import pursue
from conversion.clone.regression import Examples, Regression, features
from mecellem.errors import UserError

TEACHER = 23
LISTS = st.lists(st.lists(st.integers(0, TEACHER - 1), max_size=6), min_size=1, max_size=30)


def flat(lists: list[list[int]]) -> list[int]:
    return [number for ids in lists for number in ids]


def alignment(lists: list[list[int]]) -> Alignment:
    kinds = [Kind.UNMAPPED if not ids else Kind.COPIED if len(ids) == 1 else Kind.COMPOSED for ids in lists]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in lists])]).astype(np.int64)
    return Alignment(np.array(kinds, dtype=np.uint8), offsets, np.array(flat(lists), dtype=np.int64), {})


def table(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(TEACHER, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def made(rows: torch.Tensor, lists: list[list[int]], method: str, unknown: int | None = 3, maker=None) -> torch.Tensor:
    composer = Composer("t", rows, len(rows), unknown, maker)
    return torch.cat(list(composer.blocks(combine(alignment(lists), method), rows.dtype)))


WEIGHTS = {
    "mean": lambda n: [1 / n] * n,
    "weighted": lambda n: [(n - place) / sum(range(1, n + 1)) for place in range(n)],
    "first": lambda n: [1.0] + [0.0] * (n - 1),
}


@settings(max_examples=60)
@given(LISTS, st.sampled_from(sorted(WEIGHTS)), st.sampled_from(["float32", "bfloat16", "float16"]), st.booleans())
def test_sums_equal_a_plain_loop(lists: list[list[int]], method: str, dtype: str, vector: bool):
    kind = getattr(torch, dtype)
    rows = table(kind) if vector else table(kind, 5)
    before = module.BLOCK_VALUES
    module.BLOCK_VALUES = 40  # a few rows at a time
    try:
        found = made(rows, lists, method)
    finally:
        module.BLOCK_VALUES = before
    assert found.dtype == kind and found.shape == (len(lists), *rows.shape[1:])
    for row, ids in zip(found, lists, strict=True):
        if len(ids) <= 1:
            assert torch.equal(row, rows[ids[0] if ids else 3])  # bit by bit
            continue
        weights = WEIGHTS[method](len(ids))
        wanted = sum(weight * rows[number].double() for weight, number in zip(weights, ids, strict=True))
        torch.testing.assert_close(row, wanted.to(kind), atol=1e-6, rtol={"float32": 1e-5}.get(dtype, 1e-2))


def test_half_precision_is_summed_in_fp32():
    rows = torch.tensor([1.0, *[2.0**-9] * 255], dtype=torch.bfloat16)
    found = Composer("t", rows, 256, None, None)
    (mean,) = found.blocks(combine(alignment([list(range(256))]), "mean"), torch.bfloat16)
    assert float(mean[0]) == float(torch.tensor((1 + 255 * 2.0**-9) / 256).bfloat16())


def test_what_nothing_stands_for_has_the_unknown_row_or_the_mean_of_the_entries_that_are_used():
    rows = table(torch.float32, 4)
    rows[-3:] = 100.0  # pads
    assert torch.equal(made(rows, [[], [1]], "mean", 3)[0], rows[3])
    composer = Composer("t", rows, TEACHER - 3, None, None)
    (block,) = composer.blocks(combine(alignment([[]]), "mean"), torch.float32)
    torch.testing.assert_close(block[0], rows[:-3].mean(dim=0))


def test_random_rows_have_the_teachers_moments_and_the_others_their_bits():
    rows = torch.randn(500, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2.0, 0.1]) + 4
    lists = [[7], *[[1, 2]] * 4000]
    found = made(rows, lists, "random", maker=RandomRows(rows, 500, seed=5))
    again = made(rows, lists, "random", maker=RandomRows(rows, 500, seed=5))
    assert torch.equal(found, again) and torch.equal(found[0], rows[7])
    torch.testing.assert_close(found[1:].mean(dim=0), rows.mean(dim=0), atol=0.1, rtol=0)
    torch.testing.assert_close(found[1:].std(dim=0), rows.std(dim=0), atol=0, rtol=0.1)


def test_a_row_that_is_no_number_is_named_only_where_it_is_used():
    rows = table(torch.float32, 4)
    rows[5, 2] = float("nan")
    made(rows, [[1, 2], [3]], "mean")
    with pytest.raises(UserError, match=r"t: row 5 has values that are not finite"):
        made(rows, [[1, 2], [4, 5]], "mean")


@given(LISTS)
def test_features_are_mean_first_and_last(lists: list[list[int]]):
    lists = [ids for ids in lists if ids] or [[1]]
    rows = table(torch.float32, 4)
    found = features(rows[flat(lists)], torch.tensor([len(ids) for ids in lists]))
    for row, ids in zip(found, lists, strict=True):
        wanted = torch.cat([rows[ids].mean(dim=0), rows[ids[0]], rows[ids[-1]], torch.ones(1)])
        torch.testing.assert_close(row, wanted)


def test_regression_finds_a_linear_map_and_gives_back_the_spread_of_rows():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(900, 6, generator=generator)
    pairs = torch.randint(0, 500, (400, 2), generator=generator)
    rows[500:] = rows[pairs[:, 0]] - 0.5 * rows[pairs[:, 1]] + 3.0
    offsets = np.arange(0, 801, 2)
    found = Regression(rows, Examples(np.arange(500, 900), offsets, pairs.flatten().numpy()))
    made = found(rows[pairs.flatten()], torch.full((400,), 2))
    torch.testing.assert_close(made, rows[500:], atol=0.05, rtol=0.02)
    assert found.held_out["regression"] > 0.999 > found.held_out["mean"] and abs(found.stretch - 1) < 0.02
    noisy = rows.clone()
    noisy[500:] += 2 * torch.randn(400, 6, generator=generator)
    found = Regression(noisy, Examples(np.arange(500, 900), offsets, pairs.flatten().numpy()))
    made = found(noisy[pairs.flatten()], torch.full((400,), 2))
    assert found.stretch > 1.2
    torch.testing.assert_close(made.std(), noisy[500:].std(), rtol=0.15, atol=0)


def test_pursuit_finds_the_sums_that_vectors_are():
    generator = torch.Generator().manual_seed(0)
    anchors = torch.nn.functional.normalize(torch.randn(40, 64, generator=generator), dim=1)
    chosen = torch.stack([torch.randperm(40, generator=generator)[:3] for _ in range(25)])
    weights = torch.tensor([1.0, -0.7, 0.5]).expand(25, -1)
    vectors = (anchors[chosen] * weights.unsqueeze(2)).sum(dim=1)
    found, fitted = pursue(vectors, anchors, atoms=6)
    torch.testing.assert_close((anchors[found] * fitted.unsqueeze(2)).sum(dim=1), vectors, atol=1e-4, rtol=0)
    assert all(set(a.tolist()) <= set(b.tolist()) for a, b in zip(chosen, found, strict=True))
    one, weight = pursue(anchors[:5] * 2, anchors, atoms=1)
    assert one.flatten().tolist() == list(range(5))
    torch.testing.assert_close(weight.flatten(), torch.full((5,), 2.0))


def test_pursuit_fits_all_that_it_took_anew():
    generator = torch.Generator().manual_seed(3)
    anchors = torch.nn.functional.normalize(torch.randn(60, 16, generator=generator), dim=1)
    vectors = torch.randn(10, 16, generator=generator)
    found, fitted = pursue(vectors, anchors, atoms=5)
    for vector, places, weights in zip(vectors, found, fitted, strict=True):
        wanted = torch.linalg.lstsq(anchors[places].T, vector.unsqueeze(1)).solution.flatten()
        torch.testing.assert_close(weights, wanted, atol=1e-4, rtol=1e-3)
        assert len(set(places.tolist())) == 5


def test_other_pieces_for_some_entries_leave_the_rest():
    start = alignment([[1], [2, 3], [4, 5, 6], []])
    found = replaced(start, np.array([2]), np.array([[9, 8]]), np.array([[0.5, -2.0]], dtype=np.float32))
    assert found.offsets.tolist() == [0, 1, 3, 5, 5]
    assert found.rows.tolist() == [1, 2, 3, 9, 8] and found.weights.tolist() == [1.0, 0.5, 0.5, 0.5, -2.0]
