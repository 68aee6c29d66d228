"""Megatron-Core's `torch_dist` checkpoints, tensor by tensor: written and read with one tensor in memory, for any layout.

The format is that of `torch.distributed.checkpoint`: every tensor is stored as chunks, blocks of its global shape, each a
`torch.save` archive at an offset in a `.distcp` file; `.metadata` says where. A loader reads what overlaps its own part, so
no layout is in the file. Which chunk is which parameter is asked of Megatron-Core itself (`parameter_chunks`).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from torch.distributed.checkpoint.utils import _create_file_view
from torch.serialization import get_crc32_options, set_crc32_options

from conversion.dist_metadata import read_metadata
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
    """The tensors of a checkpoint, whatever layout wrote it, one chunk in memory at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.metadata: Any = read_metadata(self.folder)

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

    def blocks(self, part: Chunk) -> Iterator[torch.Tensor]:
        """The rows of `part` in order, as one or several tensors `[n, ...]`."""
        stored = self._overlapping(part)
        axis = len(part.global_shape) - len(part.shape)
        if len(part.shape) > 0 and all(self._spans(chunk, part, axis) for chunk in stored):
            position = part.offset[axis]
            for chunk in sorted(stored, key=lambda chunk: chunk.offsets[axis]):
                start = max(position, chunk.offsets[axis])
                stop = min(part.offset[axis] + part.shape[0], chunk.offsets[axis] + chunk.sizes[axis])
                self._require(start == position, part)
                yield self._cut(chunk, part.rows(start - part.offset[axis], stop - part.offset[axis])).view(-1, *part.shape[1:])
                position = stop
            self._require(position == part.offset[axis] + part.shape[0], part)
        else:
            yield self._assemble(part, stored)

    def whole(self, part: Chunk) -> torch.Tensor:
        """`part` in one tensor."""
        blocks = list(self.blocks(part))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def _require(self, whole: bool, part: Chunk) -> None:
        if not whole:
            raise UserError(f"{self.folder} cannot be loaded: {part.key} has parts missing, the checkpoint is damaged")

    @staticmethod
    def _spans(chunk: ChunkStorageMetadata, part: Chunk, axis: int) -> bool:
        """Whether a stored chunk covers `part` on every axis behind that of the rows."""
        return all(
            chunk.offsets[i] <= part.offset[i] and chunk.offsets[i] + chunk.sizes[i] >= part.offset[i] + part.sizes[i]
            for i in range(axis + 1, len(part.sizes))
        )

    def _overlapping(self, part: Chunk) -> list[ChunkStorageMetadata]:
        entry = self.metadata.state_dict_metadata[part.key]
        return [
            chunk
            for chunk in entry.chunks
            if all(
                chunk.offsets[i] < part.offset[i] + part.sizes[i] and part.offset[i] < chunk.offsets[i] + chunk.sizes[i]
                for i in range(len(part.sizes))
            )
        ]

    def _assemble(self, part: Chunk, stored: list[ChunkStorageMetadata]) -> torch.Tensor:
        whole = torch.empty(part.sizes, dtype=self.metadata.state_dict_metadata[part.key].properties.dtype)
        filled = 0
        for chunk in stored:
            piece = self._cut(chunk, part)
            place = tuple(
                slice(max(start, first) - first, max(start, first) - first + size)
                for start, first, size in zip(chunk.offsets, part.offset, piece.shape, strict=True)
            )
            whole[place] = piece
            filled += piece.numel()
        self._require(filled == whole.numel(), part)
        return whole.view(part.shape)

    def _cut(self, chunk: ChunkStorageMetadata, part: Chunk) -> torch.Tensor:
        """What `part` and a stored chunk have in common, in the chunk's number of axes."""
        key = part.key
        info = self.metadata.storage_data[MetadataIndex(key, chunk.offsets)]
        path = self.folder / info.relative_path
        try:
            with open(path, "rb") as stream:
                part_of_file: Any = _create_file_view(stream, info.offset, info.length)
                tensor = torch.load(part_of_file, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} cannot be loaded ({error}): the checkpoint is damaged, use another one") from None
        self._require(tuple(tensor.shape) == tuple(chunk.sizes), part)
        place = tuple(
            slice(max(first, start) - start, min(first + size, start + stored) - start)
            for first, size, start, stored in zip(part.offset, part.sizes, chunk.offsets, chunk.sizes, strict=True)
        )
        return tensor[place]
