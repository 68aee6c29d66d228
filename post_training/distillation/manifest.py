"""The last step of a folder of vectors: all shards are there, whole and of this teacher, and the manifest says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from mecellem.files import atomic_write, locked
from post_training.distillation.encode import quote
from post_training.distillation.store import AGAIN, MANIFEST, TEXT_HASH, Shard, VectorStore, made_with, shard_folder
from post_training.distillation.texts import Catalogue, shard_bounds

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SAMPLE = 32  # texts that are encoded a second time
LOWEST = 0.99  # cosine of a stored vector and the same text's alone: storage in 8 bits of mantissa costs 1e-5, bf16 sums 1e-3


def write_manifest(out: Path, plan: dict[str, Any], found: Catalogue, model: SentenceTransformer) -> dict[str, Any]:
    """Check all shards and write the manifest; returns it. `found`: the texts; `model`: the teacher up to the target.

    Raises `UserError` for a shard that is damaged or has other texts or another teacher's vectors, and where a text's stored
    vector is not the one that the teacher gives it now.
    """
    shards = [Shard(shard_folder(out, number)) for number in range(plan["shards"])]
    bounds = shard_bounds(len(found), plan["shards"])
    for shard, start, end in zip(shards, bounds, bounds[1:], strict=False):
        shard.check()
        if shard.record.get("made_with") != made_with(plan):
            raise UserError(f"{shard.folder} was made with another teacher or other settings than {out / 'plan.json'}: {AGAIN}")
        if b"".join(shard.texts.column(TEXT_HASH).to_pylist()) != found.hashes[start:end].tobytes():
            raise UserError(f"{shard.folder} holds other texts than the corpus has in its place: {AGAIN}")
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
