"""Sparse sums of entries that both vocabularies have, by orthogonal matching pursuit, as mergekit's tokensurgeon makes them.

An entry's vector in one space is written as a sum of few anchors' vectors; the same sum of the anchors' rows in the teacher is
its row (Goddard & Fernandes Neto 2025, arXiv:2506.06607). tokensurgeon takes the vectors from a second model that was trained
with the new vocabulary. Where there is none, they are the teacher's own of the entries' texts (docs/decisions/0026).
"""

from __future__ import annotations

import numpy as np
import torch

from conversion.clone.alignment import Alignment, Kind
from conversion.clone.combination import Combination, combine, replaced

Tensor = torch.Tensor
ATOMS = 8  # anchors in a sum; 64, tokensurgeon's number, fits noise in so few dimensions
CANDIDATES = 256  # anchors that an entry may be made of: those that are closest to it
BATCH_VALUES = 32 << 20  # of candidates at a time: 128 MiB


def combine_by_pursuit(alignment: Alignment, vectors: Tensor) -> Combination:
    """Composed entries as sums of copied ones. `vectors`: of all entries, fp32 `[n, d]`; those of others are not looked at."""
    anchors = np.flatnonzero(alignment.kinds == Kind.COPIED)
    entries = np.flatnonzero((alignment.kinds == Kind.COMPOSED) & (alignment.lengths > 1))
    if not len(anchors) or not len(entries):
        return combine(alignment, "mean")
    centre = vectors[anchors].mean(dim=0)
    unit = torch.nn.functional.normalize(vectors - centre, dim=1)
    found, weights = pursue(unit[entries], unit[anchors], ATOMS)
    rows = alignment.pieces[alignment.offsets[anchors[found.numpy()]]]
    return replaced(alignment, entries, rows, weights.numpy())


def nearest(vectors: Tensor, anchors: Tensor, count: int) -> Tensor:
    """Indices `[b, count]` of the anchors `[n, d]` with the largest absolute inner product, for vectors `[b, d]`."""
    return (vectors @ anchors.T).abs().topk(min(count, len(anchors)), dim=1).indices


def pursue(vectors: Tensor, anchors: Tensor, atoms: int, candidates: int = CANDIDATES) -> tuple[Tensor, Tensor]:
    """Anchors `[b, atoms]` and weights `[b, atoms]` whose sums come closest to `vectors` `[b, d]`; anchors are `[n, d]`, unit.

    Each step takes the anchor that has most in common with what is left, and fits all that were taken anew (least squares).
    """
    atoms = min(atoms, len(anchors), vectors.size(1))
    rows, weights = [], []
    for batch in vectors.split(max(1, BATCH_VALUES // (CANDIDATES * vectors.size(1)))):
        near = nearest(batch, anchors, max(atoms, candidates))
        found, fitted = _pursue(batch, anchors[near], atoms)
        rows.append(near.gather(1, found))
        weights.append(fitted)
    return torch.cat(rows), torch.cat(weights)


def _pursue(vectors: Tensor, near: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
    """Places `[b, atoms]` in `near` `[b, m, d]`, and weights."""
    count = torch.arange(len(vectors))
    left = vectors
    taken = torch.zeros(near.shape[:2], dtype=torch.bool)
    basis = torch.zeros(len(vectors), atoms, vectors.size(1))  # orthonormal, of what was taken
    corner = torch.zeros(len(vectors), atoms, atoms)  # upper triangle: what was taken, in that basis
    places = torch.zeros(len(vectors), atoms, dtype=torch.long)
    for step in range(atoms):
        inner = torch.bmm(near, left.unsqueeze(2)).squeeze(2).abs().masked_fill(taken, -1.0)
        best = inner.argmax(dim=1)
        taken[count, best] = True
        places[:, step] = best
        atom = near[count, best]
        shares = torch.bmm(basis[:, :step], atom.unsqueeze(2)).squeeze(2)
        rest = atom - torch.bmm(shares.unsqueeze(1), basis[:, :step]).squeeze(1)
        norm = rest.norm(dim=1).clamp(min=1e-6)
        basis[:, step] = rest / norm.unsqueeze(1)
        corner[:, :step, step], corner[:, step, step] = shares, norm
        left = left - (left * basis[:, step]).sum(dim=1, keepdim=True) * basis[:, step]
    inside = torch.bmm(basis, vectors.unsqueeze(2))
    return places, torch.linalg.solve_triangular(corner, inside, upper=True).squeeze(2)
