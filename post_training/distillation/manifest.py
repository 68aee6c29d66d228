"""The last step of a folder of vectors: all shards are there, whole and of this teacher, and the manifest says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from mecellem.files import atomic_write, locked
from post_training.distillation.encode import quote
from post_training.distillation.store import AGAIN, MANIFEST, Shard, VectorStore, shard_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SAMPLE = 32  # texts that are encoded a second time
LOWEST = 0.99  # cosine of a stored vector and the same text's alone: storage in 8 bits of mantissa costs 1e-5, bf16 sums 1e-3


def write_manifest(out: Path, plan: dict[str, Any], model: SentenceTransformer) -> dict[str, Any]:
    """Check all shards and write the manifest; returns it. `model`: the teacher up to the target.

    Raises `UserError` for a damaged shard, and where a text's stored vector is not the one that the teacher gives it now.
    """
    shards = [Shard(shard_folder(out, number)) for number in range(plan["shards"])]
    for shard in shards:
        shard.check()
    records = [shard.record for shard in shards]
    seconds = sum(record["seconds"] for record in records)
    manifest = {
        **plan,
        "width": records[0]["width"],
        "count": sum(record["texts"] for record in records),
        "tokens": sum(record["tokens"] for record in records),
        "truncated": sum(record["truncated"] for record in records),
        "tokens_cut": sum(record["tokens_cut"] for record in records),
        "shards": [record["sha256"] for record in records],
        "seconds": seconds,
        "texts_per_second": sum(record["texts"] for record in records) / max(seconds, 1e-9),
    }
    assert manifest["count"] == plan["count"]
    manifest["verified"] = verify(VectorStore(out, manifest, shards), model, plan["prompt"])
    with locked(out / MANIFEST), atomic_write(out / MANIFEST) as handle:
        handle.write(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def verify(store: VectorStore, model: SentenceTransformer, prompt: str) -> dict[str, float]:
    """Encode the texts with the smallest hashes again, each alone, and compare. Raises `UserError`."""
    import numpy as np
    import torch

    rows = np.argsort(store.hash_words(), kind="stable")[:SAMPLE].tolist()
    stored, texts = store.vectors(rows), store.texts(rows)
    alone = torch.stack(
        [model.encode(text, prompt=prompt, show_progress_bar=False, convert_to_tensor=True).float().cpu() for text in texts]
    )
    cosines = torch.nn.functional.cosine_similarity(stored, alone)
    worst = int(cosines.argmin())
    if not float(cosines[worst]) >= LOWEST:
        shard, place = store.place(rows[worst])
        raise UserError(
            f"{shard.folder}, text {place + 1} ({quote(texts[worst])}): its stored vector has the cosine "
            f"{float(cosines[worst]):.3f} with the one that the teacher gives now: {AGAIN}"
        )
    return {"texts": len(rows), "lowest_cosine": float(cosines[worst]), "mean_cosine": float(cosines.mean())}
