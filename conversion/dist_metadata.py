"""`.metadata` of a `torch.distributed.checkpoint`, read without running what a pickle may ask for.

torch loads that file with plain `pickle`, which calls whatever the file names. Here a file may only name what
`torch.distributed.checkpoint` and Megatron-Core 0.16 and 0.19 write into it: records, sizes, types and paths.
"""

from __future__ import annotations

import pathlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import filesystem, metadata, planner
from torch.serialization import _get_layout

from mecellem.errors import UserError

METADATA = ".metadata"  # torch's name
RECORDS = {
    metadata: (
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties"),
        *("ChunkStorageMetadata", "_MEM_FORMAT_ENCODING"),
    ),
    filesystem: ("_StorageInfo",),
    planner: ("SavePlan", "WriteItem", "WriteItemType", "TensorWriteData"),  # what each rank wrote: Megatron-Core keeps it
}
ALLOWED: dict[tuple[str, str], Any] = {
    **{(module.__name__, name): getattr(module, name) for module, names in RECORDS.items() for name in names},
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): _get_layout,  # from "torch.strided" to the object
    ("pathlib", "PosixPath"): pathlib.PosixPath,
    ("pathlib._local", "PosixPath"): pathlib.PosixPath,  # its name from Python 3.13 on
}


class RefusedError(Exception):
    """A pickle names something that has no place in `.metadata`."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What the file names by module and name, if it is one of `ALLOWED` or a type of tensors."""
        found = ALLOWED.get((module, name))
        if found is None and module == "torch":
            found = vars(torch).get(name)
            found = found if isinstance(found, torch.dtype) else None
        if found is None:
            raise RefusedError(f"{module}.{name}")
        return found


def read_metadata(folder: Path) -> metadata.Metadata:
    """Where the tensors of a checkpoint are. Raises `UserError` for a file that is damaged or names any other object."""
    path = folder / METADATA
    try:
        with open(path, "rb") as stream:
            found = _Unpickler(stream).load()
    except RefusedError as error:
        raise UserError(
            f"{path} asks for {error}, which no checkpoint needs and which could run any code: it was not loaded, use a "
            "checkpoint whose origin you trust"
        ) from None
    except Exception as error:  # bytes that are no pickle can raise nearly anything
        raise UserError(f"{path} cannot be loaded ({error}): the checkpoint is damaged") from None
    if not isinstance(found, metadata.Metadata):
        raise UserError(f"{path} cannot be loaded (it holds a {type(found).__name__}): the checkpoint is damaged")
    return found
