"""Megatron-Core's `torch_dist` checkpoints, for any layout: written tensor by tensor, read in parts of tensors.

The format is that of `torch.distributed.checkpoint`: every tensor is stored as chunks, blocks of its global shape, each a
`torch.save` archive at an offset in a `.distcp` file; `.metadata` says where. A loader reads what overlaps its own part, so
no layout is in the file. Which chunk is which parameter is asked of Megatron-Core itself (`parameter_chunks`).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.storage import WriteResult
from torch.serialization import get_crc32_options, set_crc32_options

from conversion.dist_metadata import read_metadata
from conversion.stored_tensor import StoredTensor, damaged
from mecellem.errors import UserError

DATA = "__0_0.distcp"  # torch's name for the first file of rank 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of a parameter and where they lie in a tensor of the checkpoint (layers may be stacked in one)."""

    key: str
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]  # of the rows, without the axis of stacked layers

    @property
    def sizes(self) -> tuple[int, ...]:
        """Extent in the global tensor."""
        return (1,) * (len(self.global_shape) - len(self.shape)) + self.shape

    def rows(self, start: int, stop: int) -> Chunk:
        """The part with these rows."""
        axis = len(self.global_shape) - len(self.shape)
        offset = (*self.offset[:axis], self.offset[axis] + start, *self.offset[axis + 1 :])
        return Chunk(self.key, self.global_shape, offset, (stop - start, *self.shape[1:]))

    def pieces(self, values: int) -> Iterator[Chunk]:
        """Its rows in order, in parts of at most that many values (or of one row, where that is more)."""
        if not self.shape:
            yield self
            return
        count = max(1, values // max(1, math.prod(self.shape[1:])))
        for start in range(0, self.shape[0], count):
            yield self.rows(start, min(start + count, self.shape[0]))


def row_shape(parts: list[Chunk]) -> tuple[int, ...]:
    """Shape of a parameter from its chunks."""
    return (sum(part.shape[0] for part in parts), *parts[0].shape[1:])


def parameter_chunks(module: Any) -> tuple[dict[str, list[Chunk]], dict[str, bytes]]:
    """Where Megatron-Core puts each parameter of a whole model (TP 1, PP 1), by its name in the module; and what else it
    puts beside them, as bytes under the key of a checkpoint (extra states, empty in local layers).
    """
    from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensorFactory

    from megatron_recipes.engine.checkpoint import sharded_metadata

    chunks: dict[str, list[Chunk]] = {}
    objects: dict[str, bytes] = {}
    for name, value in module.sharded_state_dict(metadata=sharded_metadata()).items():
        if isinstance(value, ShardedObject):
            stream = io.BytesIO()
            torch.save([value.data], stream)
            objects[value.unique_key] = stream.getvalue()
            continue
        shards = value.build() if isinstance(value, ShardedTensorFactory) else [value]
        found = [
            Chunk(item.key, tuple(item.global_shape), tuple(item.global_offset), tuple(item.local_shape)) for item in shards
        ]
        chunks[name] = found
    return chunks, objects


def write_tensors(
    folder: Path,
    tensors: Iterable[tuple[Chunk, Callable[[], torch.Tensor]]],
    dtype: torch.dtype,
    objects: dict[str, bytes],
) -> None:
    """Write what `megatron.core.dist_checkpointing.load` reads into `folder`: each tensor is made, written and forgotten."""
    from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config

    from megatron_recipes.engine.checkpoint import COMMON

    found: dict[str, Any] = {}
    results: list[WriteResult] = []
    with open(folder / DATA, "wb") as stream, _without_checksums():

        def note(index: MetadataIndex, start: int) -> None:
            length = stream.tell() - start
            results.append(WriteResult(index, length, _StorageInfo(DATA, start, length)))

        for key, content in objects.items():
            start = stream.tell()
            stream.write(content)
            note(MetadataIndex(key), start)
            found[key] = BytesStorageMetadata()
        for chunk, make in tensors:
            entry = found.setdefault(
                chunk.key, TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(chunk.global_shape), [])
            )
            start = stream.tell()
            torch.save(_own_storage(make(), dtype, chunk), stream)
            note(MetadataIndex(chunk.key, torch.Size(chunk.offset), len(entry.chunks)), start)
            entry.chunks.append(ChunkStorageMetadata(torch.Size(chunk.offset), torch.Size(chunk.sizes)))
    writer = FileSystemWriter(folder)
    writer.set_up_storage_writer(True)
    writer.finish(Metadata(found), [results])
    torch.save({}, folder / COMMON)
    save_config(CheckpointingConfig("torch_dist"), str(folder))


@contextmanager
def _without_checksums() -> Iterator[None]:
    """`torch.save` without the CRC-32 of its archives, which `torch.load` never looks at and which takes half of the time."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)


def _own_storage(tensor: torch.Tensor, dtype: torch.dtype, chunk: Chunk) -> torch.Tensor:
    """The tensor in the chunk's shape; `torch.save` would write all of a storage of which it is a part."""
    assert tensor.dtype == dtype and tuple(tensor.shape) == chunk.shape, (chunk, tensor.shape, tensor.dtype)
    tensor = tensor.detach().contiguous().view(chunk.sizes)
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


class TorchDistReader:
    """The tensors of a checkpoint, whatever layout wrote it, in parts of any size."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.metadata: Any = read_metadata(self.folder)
        self._found: dict[MetadataIndex, StoredTensor] = {}
        self._corners: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # [chunks, axes]: where a tensor's chunks begin and end

    def check(self, chunks: dict[str, list[Chunk]]) -> torch.dtype:
        """The one type of the tensors. Raises `UserError` for a parameter that is not there, not in this size or of another
        type than the others.
        """
        types: dict[torch.dtype, str] = {}
        for name, parts in chunks.items():
            for part in parts:
                found = self.metadata.state_dict_metadata.get(part.key)
                if not isinstance(found, TensorStorageMetadata):
                    raise UserError(f"{self.folder} cannot be loaded: it has no tensor {part.key} (for {name})")
                types.setdefault(found.properties.dtype, part.key)
                if len(found.size) != len(part.global_shape):
                    raise UserError(f"{self.folder} cannot be loaded: {part.key} has shape {list(found.size)}")
        if len(types) > 1:
            found = ", ".join(f"{key} is {str(dtype).removeprefix('torch.')}" for dtype, key in types.items())
            raise UserError(f"{self.folder} mixes types ({found}): save all parameters in one type first")
        (dtype,) = types
        return dtype

    def blocks(self, part: Chunk, most: int) -> Iterator[torch.Tensor]:
        """The rows of `part` in order, as tensors `[n, ...]` of at most `most` bytes (or of one row, where that is more)."""
        stored = self._overlapping(part)
        dtype = self.metadata.state_dict_metadata[part.key].properties.dtype
        for piece in part.pieces(most // dtype.itemsize):
            yield self._assemble(piece, stored)

    def whole(self, part: Chunk) -> torch.Tensor:
        """`part` in one tensor."""
        return self._assemble(part, self._overlapping(part))

    def _overlapping(self, part: Chunk) -> list[ChunkStorageMetadata]:
        chunks = self.metadata.state_dict_metadata[part.key].chunks
        if part.key not in self._corners:
            shape = len(chunks), len(part.offset)
            first = np.array([chunk.offsets for chunk in chunks], dtype=np.int64).reshape(shape)
            sizes = np.array([chunk.sizes for chunk in chunks], dtype=np.int64).reshape(shape)
            self._corners[part.key] = first, first + sizes
        first, last = self._corners[part.key]
        start = np.array(part.offset, dtype=np.int64)
        inside = (first < start + np.array(part.sizes, dtype=np.int64)) & (start < last)
        return [chunks[i] for i in np.flatnonzero(inside.all(axis=1))]

    def _assemble(self, part: Chunk, stored: list[ChunkStorageMetadata]) -> torch.Tensor:
        """`part` from what it has in common with each of these chunks."""
        found: list[tuple[tuple[slice, ...], torch.Tensor]] = []
        for chunk in stored:
            axes = zip(part.offset, part.sizes, chunk.offsets, chunk.sizes, strict=True)
            common = [(max(a, b), min(a + size, b + extent)) for a, size, b, extent in axes]
            if all(start < stop for start, stop in common):
                inside = self._stored(part.key, chunk).read(_relative(common, chunk.offsets))
                found.append((_relative(common, part.offset), inside))
        if sum(tensor.numel() for _, tensor in found) != math.prod(part.sizes):
            raise UserError(f"{self.folder} cannot be loaded: {part.key} has parts missing, the checkpoint is damaged")
        if len(found) == 1:
            return found[0][1].view(part.shape)
        whole = torch.empty(part.sizes, dtype=self.metadata.state_dict_metadata[part.key].properties.dtype)
        for place, tensor in found:
            whole[place] = tensor
        return whole.view(part.shape)

    def _stored(self, key: str, chunk: ChunkStorageMetadata) -> StoredTensor:
        """Where a chunk is, as its file says it; `.metadata` must say the same."""
        index = MetadataIndex(key, chunk.offsets)
        if index not in self._found:
            info = self.metadata.storage_data[index]
            found = StoredTensor.find(self.folder / info.relative_path, info.offset, info.length)
            dtype = self.metadata.state_dict_metadata[key].properties.dtype
            if found.shape != tuple(chunk.sizes) or found.dtype != dtype:
                raise damaged(found.path, f"{key} is there as {found.dtype} {list(found.shape)}, not as .metadata says")
            self._found[index] = found
        return self._found[index]


def _relative(box: list[tuple[int, int]], origin: Sequence[int]) -> tuple[slice, ...]:
    """First and last positions on every axis as slices that count from `origin`."""
    return tuple(slice(start - first, stop - first) for (start, stop), first in zip(box, origin, strict=True))
