"""`OUT/` of `mecellem distill vectors`: a plan, shards that are whole or absent, and a manifest once all are there.

    plan.json                           what makes two calls one: teacher, prompt, target, widths of numbers, the texts' hashes
    shards/00000/texts.arrow            text, lang, source, sha256, tokens of the teacher (Arrow IPC, one record batch)
    shards/00000/vectors.safetensors    "vectors" [texts, width]
    shards/00000/shard.json             counts, the SHA-256 of both files, seconds
    manifest.json                       written last: the plan, all shards, what a second look at some vectors found

Both data files are read through the page cache: a training holds no copy of them.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mecellem.errors import UserError
from mecellem.files import atomic_folder, atomic_write, disk_full_is_user_error, locked, sha256_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch
    from numpy.typing import NDArray

    from post_training.distillation.texts import Text

PLAN, MANIFEST, SHARDS = "plan.json", "manifest.json", "shards"
TEXTS, VECTORS, RECORD = "texts.arrow", "vectors.safetensors", "shard.json"
KEY = "vectors"  # of the one tensor in a file
TEXT_HASH = "sha256"  # the column with that of every text
FORMAT = 2
Dtype = Literal["fp16", "bf16", "fp32"]
INFORMATION = ("teacher_name", "origins", "empty", "duplicates")  # in a plan, and no reason to refuse
SHOWN = {"text_hashes": "texts", "count": "texts"}
AGAIN = "remove that folder and give the same `mecellem distill vectors` command again"


def torch_dtype(name: str) -> torch.dtype:
    """The type of numbers that a flag names."""
    import torch

    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[name]


def shard_folder(out: Path, number: int) -> Path:
    """Where a shard lies."""
    return out / SHARDS / f"{number:05d}"


def made_with(plan: dict[str, Any]) -> str:
    """What every shard of a plan has in common, for its record."""
    parts = {name: value for name, value in plan.items() if name not in (*INFORMATION, "shards", "versions")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def agree_on_plan(out: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or find that the one there is the same. Raises `UserError` for another one, and for other files."""
    path = out / PLAN
    with locked(path):
        if not path.is_file():
            if out.is_dir() and any(not item.name.startswith(".") for item in out.iterdir()):
                raise UserError(f"{out} exists already and holds no vectors: choose another folder or remove it first")
            with atomic_write(path) as handle:
                handle.write(json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
            return
    found = read_json(path)
    names = {*found, *plan} - {*INFORMATION}
    differ = sorted({SHOWN.get(name, name) for name in names if found.get(name) != plan.get(name)})
    if differ == ["versions"] and is_complete(out, plan["shards"]):
        return  # nothing will be added to what other versions made
    if differ:
        raise UserError(
            f"{out} holds vectors that differ in {' and '.join(differ)}: give the same command to go on with them, or choose "
            "another --out"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `UserError` for a damaged file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
    except (ValueError, AssertionError):
        lost = "that file" if path.name == MANIFEST else "the folder that it lies in"
        raise UserError(f"{path} is damaged: remove {lost} and give the `mecellem distill vectors` command again") from None
    return found


def write_shard(out: Path, number: int, texts: Sequence[Text], vectors: torch.Tensor, facts: dict[str, Any]) -> None:
    """Write one shard, whole or not at all. `vectors` [texts, width] as stored; `facts`: `tokens` [texts] and what to note.

    A shard that is there already (a second task made it) is left. Raises `UserError` on a full disk.
    """
    from safetensors.torch import save_file

    target = shard_folder(out, number)
    tokens = facts.pop("tokens")
    with locked(target):
        if target.is_dir():
            return
        with atomic_folder(target) as folder, disk_full_is_user_error(target):
            write_texts(folder / TEXTS, texts, tokens)
            save_file({KEY: vectors.contiguous()}, folder / VECTORS)
            record = {
                "number": number,
                "texts": len(texts),
                "width": vectors.shape[1],
                "tokens": int(tokens.sum()),
                "text_hashes": hashlib.sha256(b"".join(text.sha256 for text in texts)).hexdigest(),
                "sha256": {name: sha256_of(folder / name) for name in (TEXTS, VECTORS)},
                **facts,
            }
            (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def write_texts(path: Path, texts: Sequence[Text], tokens: NDArray[np.int32]) -> None:
    """The texts of a shard as one record batch, uncompressed, so that a row is read where it lies."""
    import pyarrow as pa

    table = pa.table(
        {
            "text": pa.array([text.text for text in texts], pa.large_string()),
            "lang": pa.array([text.lang for text in texts], pa.string()),
            "source": pa.array([text.source for text in texts], pa.string()),
            TEXT_HASH: pa.array([text.sha256 for text in texts], pa.binary(32)),
            "tokens": pa.array(tokens, pa.int32()),
        }
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, len(texts)))


def missing_shards(out: Path, count: int) -> list[int]:
    """Numbers of the shards that are not there."""
    return [number for number in range(count) if not shard_folder(out, number).is_dir()]


def is_complete(out: Path, count: int) -> bool:
    """Whether all shards are there and were checked. A shard that was removed for its damage is made again."""
    return (out / MANIFEST).is_file() and not missing_shards(out, count)


class Shard:
    """One shard, mapped. `texts`: the table's record batch; `vectors` [texts, width] as stored."""

    def __init__(self, folder: Path) -> None:
        """Open it. Raises `UserError` for a file that is missing, cut or of another length than the record says."""
        import pyarrow as pa
        from safetensors import SafetensorError, safe_open

        self.folder = folder
        try:
            self.record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            table = pa.ipc.open_file(pa.memory_map(str(folder / TEXTS))).read_all()
            self.file = safe_open(folder / VECTORS, "pt")
            self.vectors: torch.Tensor = self.file.get_tensor(KEY)
        except (OSError, ValueError, pa.ArrowException, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{folder} is damaged ({reason}): {AGAIN}") from None
        self.texts: pa.RecordBatch = table.combine_chunks().to_batches()[0]
        shape = (self.record["texts"], self.record["width"])
        if (len(self.texts), *self.vectors.shape[1:]) != shape or tuple(self.vectors.shape) != shape:
            raise UserError(f"{folder} is damaged ({len(self.texts)} texts, vectors {tuple(self.vectors.shape)}): {AGAIN}")

    def check(self) -> None:
        """Raise `UserError` when a file is not the one that was written, by its SHA-256."""
        for name, expected in self.record["sha256"].items():
            if sha256_of(self.folder / name) != expected:
                raise UserError(f"{self.folder / name} is damaged (its SHA-256 is not the one in {RECORD}): {AGAIN}")


class VectorStore:
    """All shards of a finished folder as one list of texts with vectors; nothing is read before it is asked for."""

    def __init__(self, folder: Path, manifest: dict[str, Any], shards: Sequence[Shard]) -> None:
        """`shards` in order."""
        self.folder, self.manifest, self.shards = folder, manifest, list(shards)
        self.starts = [0]
        for shard in self.shards:
            self.starts.append(self.starts[-1] + len(shard.texts))

    def __len__(self) -> int:
        """Texts."""
        return self.starts[-1]

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.manifest["width"])

    @property
    def sha256(self) -> str:
        """What texts and vectors are: over the SHA-256s of all data files and the plan, not over times or places."""
        parts = {name: self.manifest[name] for name in ("teacher", "prompt", "target", "dtype", "text_hashes", "shards")}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def place(self, row: int) -> tuple[Shard, int]:
        """The shard of a row, and its place there."""
        number = bisect_right(self.starts, row) - 1
        return self.shards[number], row - self.starts[number]

    def texts(self, rows: Sequence[int]) -> list[str]:
        """The texts of some rows."""
        found = []
        for row in rows:
            shard, place = self.place(row)
            found.append(shard.texts.column("text")[place].as_py())
        return found

    def vectors(self, rows: Sequence[int]) -> torch.Tensor:
        """[rows, width], fp32. Raises `UserError` for a vector with NaN or infinity."""
        import torch

        found = torch.empty(len(rows), self.width)
        for number, row in enumerate(rows):
            shard, place = self.place(row)
            found[number] = shard.vectors[place]
        if not bool(torch.isfinite(found).all()):
            bad = rows[int((~torch.isfinite(found).all(dim=1)).nonzero()[0])]
            shard, place = self.place(bad)
            raise UserError(f"{shard.folder}, text {place + 1}: its vector has NaN or infinity: {AGAIN}")
        return found

    def hash_words(self) -> NDArray[np.uint64]:
        """[texts]: the first 64 bits of every text's SHA-256."""
        import numpy as np

        parts = []
        for shard in self.shards:
            data = np.frombuffer(shard.texts.column(TEXT_HASH).buffers()[1], dtype=">u8")
            offset = shard.texts.column(TEXT_HASH).offset
            parts.append(data.reshape(-1, 4)[offset : offset + len(shard.texts), 0].astype(np.uint64))
        return np.concatenate(parts)

    def counts(self, column: str) -> dict[str, int]:
        """How many texts each language (`lang`) or `source` has, most first."""
        import pyarrow as pa

        whole = pa.chunked_array([shard.texts.column(column) for shard in self.shards])
        found = {item["values"]: int(item["counts"]) for item in whole.value_counts().to_pylist()}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def check(self) -> None:
        """Read all files once. Raises `UserError` for one that is not what the manifest says."""
        for shard, noted in zip(self.shards, self.manifest["shards"], strict=True):
            if shard.record["sha256"] != noted:
                raise UserError(f"{shard.folder} is not the shard that {MANIFEST} names: make the vectors again")
            shard.check()


def open_store(folder: Path) -> VectorStore:
    """A finished folder. Raises `UserError` for one that is none, is unfinished or damaged."""
    if not (folder / PLAN).is_file():
        raise UserError(f"{folder} holds no vectors (--vectors): make them with `mecellem distill vectors`")
    plan = read_json(folder / PLAN)
    if plan.get("format") != FORMAT:
        raise UserError(
            f"{folder} has the format {plan.get('format')}, and this version reads {FORMAT}: make the vectors again"
        )
    if not is_complete(folder, plan["shards"]):
        missing = missing_shards(folder, plan["shards"])
        lacks = f"{len(missing)} of {plan['shards']} shards are missing" if missing else "its shards were not checked yet"
        raise UserError(f"{folder} is not finished, {lacks}: give the same `mecellem distill vectors` command again")
    manifest = read_json(folder / MANIFEST)
    shards = [Shard(shard_folder(folder, number)) for number in range(len(manifest["shards"]))]
    store = VectorStore(folder, manifest, shards)
    if len(store) != manifest["count"]:
        raise UserError(f"{folder} has {len(store):,} texts and its {MANIFEST} says {manifest['count']:,}: make it again")
    return store
