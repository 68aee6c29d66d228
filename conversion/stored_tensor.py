"""A tensor of a `torch.save` archive that lies inside a larger file: found once, then read in parts of any size.

(`torch.load` reads whole tensors, and maps only archives that are files of their own.)
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.utils import _create_file_view

from mecellem.errors import UserError

RECORD = "data/0"  # torch's name for the first storage of an archive; that of one tensor has no other


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where the values of a tensor are: archives hold them as in memory, uncompressed."""

    path: Path
    begin: int  # byte in the file of the first value
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in values

    @classmethod
    def find(cls, path: Path, offset: int, length: int) -> StoredTensor:
        """The tensor of the archive in `length` bytes from `offset` on. Raises `UserError` for what is no such archive."""
        try:
            with open(path, "rb") as stream:
                archive: Any = _create_file_view(stream, offset, length)
                outline = torch.load(archive, map_location="meta", weights_only=True)
                archive.seek(0)
                reader: Any = torch._C.PyTorchFileReader(archive)
                record = reader.get_record_offset(RECORD)
        except pickle.UnpicklingError:  # whose words advise to load it all the same
            raise damaged(path, "it holds something else in the place of a tensor") from None
        except (OSError, EOFError, RuntimeError) as error:
            raise damaged(path, str(error).partition("\n")[0]) from None
        if not isinstance(outline, torch.Tensor):
            raise damaged(path, f"it holds a {type(outline).__name__} in the place of a tensor")
        begin = offset + record + outline.storage_offset() * outline.dtype.itemsize
        return cls(path, begin, outline.dtype, tuple(outline.shape), outline.stride())

    def read(self, place: tuple[slice, ...]) -> torch.Tensor:
        """The values inside `place` (a start and a stop on every axis) in memory of their own."""
        size = tuple(part.stop - part.start for part in place)
        first = sum(part.start * stride for part, stride in zip(place, self.stride, strict=True))
        extent = 1 + sum((count - 1) * stride for count, stride in zip(size, self.stride, strict=True))
        values = torch.empty(extent, dtype=self.dtype)
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.begin + first * self.dtype.itemsize)
                whole = stream.readinto(values.view(torch.uint8).numpy().data) == values.nbytes
        except OSError as error:
            raise damaged(self.path, str(error)) from None
        if not whole:
            raise damaged(self.path, "it ends inside of a tensor")
        return values.as_strided(size, self.stride)


def damaged(path: Path, cause: str) -> UserError:
    """The sentence for a file of a checkpoint that cannot be read."""
    return UserError(f"{path} cannot be loaded ({cause}): the checkpoint is damaged, use another one")
