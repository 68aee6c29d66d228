"""Train, validation and test: whole clusters, chosen by a hash of the cluster's name and by nothing else."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "validation", "test")

# Shares of (train, validation). There are only 390 speeches, and a retrieval test needs about 100 of them.
_SHARES = {"ataturk": (0.70, 0.05)}
_DEFAULT_SHARES = (0.80, 0.05)


def split_of(cluster: str) -> str:
    """The split of a cluster named by a document id (`source/...`); neither order nor other clusters matter."""
    train, validation = _SHARES.get(cluster.partition("/")[0], _DEFAULT_SHARES)
    position = int.from_bytes(hashlib.sha256(cluster.encode()).digest()[:8], "big") / 2**64
    if position < train:
        return "train"
    return "validation" if position < train + validation else "test"
