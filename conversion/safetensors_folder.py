"""The weights of a Hugging Face folder, tensor by tensor: sharded safetensors in and out. Pickle files are never opened."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open

from mecellem.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILE_NAME = re.compile(r"[^/\\\0]+\.safetensors")  # in the folder itself: an index must not point out of it
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
SHARD_BYTES = 5_000_000_000  # as transformers and the hub cut files
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}  # what conversion reads and writes, in the format's names
TYPES = {name: dtype for dtype, name in NAMES.items()}
BLOCK_BYTES = 32 << 20  # what is copied or computed with at a time


class SafetensorsReader:
    """Names, shapes and tensors of a folder. Opening it reads the headers only; a tensor is mapped while it is in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, str] = {}
        for path in self._weight_files():
            self._read_header(path)

    def _weight_files(self) -> list[Path]:
        index = self.folder / INDEX
        if index.exists():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError) as error:  # a list, or values that are no strings
                raise UserError(f"{index} is not an index of safetensors files ({error}): get the file again") from None
            for name in names:
                if not isinstance(name, str) or FILE_NAME.fullmatch(name) is None:
                    raise UserError(
                        f"{index} is not an index of safetensors files (its weight_map has {name!r:.100}, which does not "
                        "name a file of this folder): get the file again"
                    )
                if not (self.folder / name).is_file():
                    raise UserError(f"{self.folder / name} is missing, {index.name} lists it: get the folder again")
            return [self.folder / name for name in names]
        if (self.folder / SINGLE).is_file():
            return [self.folder / SINGLE]
        pickles = sorted(path.name for pattern in PICKLES for path in self.folder.glob(pattern))
        if pickles:
            raise UserError(
                f"{self.folder} has its weights in {pickles[0]}: pickle files can run any code and are never loaded; save the "
                "model as safetensors first (`save_pretrained` of transformers does) where you trust its origin"
            )
        raise UserError(f"{self.folder} has neither {SINGLE} nor {INDEX}: it is not a Hugging Face model folder")

    def _read_header(self, path: Path) -> None:
        with self._open(path) as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                part = file.get_slice(name)
                if name in self.files:
                    raise UserError(f"{path} and {self.files[name].name} both hold {name}: the folder mixes two models")
                self.files[name], self.shapes[name], self.types[name] = path, tuple(part.get_shape()), part.get_dtype()

    @contextmanager
    def _open(self, path: Path) -> Iterator[Any]:
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read ({error}): the file is truncated or damaged, get it again") from None

    def dtype(self) -> torch.dtype:
        """The one type of all tensors. Raises `UserError` for a folder that mixes types or holds another one."""
        first = next(iter(self.types), None)
        for name, found in self.types.items():
            if found not in TYPES:
                raise UserError(f"{self.files[name]}: {name} is {found}: convert the folder to float32 or bfloat16 first")
            if first is not None and found != self.types[first]:
                raise UserError(
                    f"{self.folder} mixes types ({first} is {self.types[first]}, {name} is {found}): save it in one type first"
                )
        return TYPES[self.types[first]] if first is not None else torch.float32

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `UserError` for a tensor that is missing, not expected or of another shape; it names the first of them."""
        missing, extra = sorted(expected.keys() - self.shapes), sorted(self.shapes.keys() - expected)
        for names, what in ((missing, "are missing"), (extra, "do not belong to the architecture of its config.json")):
            if names:
                raise UserError(f"{self.folder}: {len(names)} tensor(s) {what}, the first is {names[0]}")
        for name, shape in expected.items():
            if self.shapes[name] != tuple(shape):
                raise UserError(
                    f"{self.files[name]}: {name} has shape {list(self.shapes[name])}, its config.json makes it {list(shape)}"
                )

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor as a map of its file: it takes memory as it is read, and gives it back when it is dropped."""
        with self._open(self.files[name]) as file:
            return file.get_tensor(name)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) of a tensor, mapped as above."""
        with self._open(self.files[name]) as file:
            return file.get_slice(name)[start:stop]


class SafetensorsWriter:
    """Puts tensors into their places in files whose headers are already written. Made by `write_safetensors`."""

    def __init__(self, places: dict[str, tuple[IO[bytes], int, int]], dtype: torch.dtype) -> None:
        self.places = places
        self.dtype = dtype

    def put(self, name: str, blocks: Iterable[torch.Tensor]) -> None:
        """Write a tensor from its consecutive blocks of rows, in the folder's type."""
        file, start, stop = self.places.pop(name)
        file.seek(start)
        for block in blocks:
            file.write(block.detach().to(self.dtype).contiguous().view(-1).view(torch.uint8).numpy().data)
        assert file.tell() == stop, f"{name}: {file.tell() - start} bytes instead of {stop - start}"


@contextmanager
def write_safetensors(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, shard_bytes: int = SHARD_BYTES
) -> Iterator[SafetensorsWriter]:
    """Yield a writer of `model.safetensors`, or of shards of at most `shard_bytes` and their index, for these tensors.

    (safetensors' own `save_file` takes all tensors of a file at once.)
    """
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    split = split_state_dict_into_shards_factory(
        dict(shapes),
        get_storage_size=lambda shape: math.prod(shape) * dtype.itemsize,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    places: dict[str, tuple[IO[bytes], int, int]] = {}
    with ExitStack() as stack:
        for filename, names in split.filename_to_tensors.items():
            file = stack.enter_context(open(folder / filename, "wb"))
            header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
            end = 0
            for name in names:
                header[name] = {"dtype": NAMES[dtype], "shape": list(shapes[name]), "data_offsets": [end, end + sizes[name]]}
                end += sizes[name]
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            file.write(len(text).to_bytes(8, "little") + text)
            begin = file.tell()
            for name in names:
                first, last = header[name]["data_offsets"]
                places[name] = (file, begin + first, begin + last)
        writer = SafetensorsWriter(places, dtype)
        yield writer
        assert not writer.places, f"not written: {list(writer.places)[:3]}"
    if split.is_sharded:
        total = {"total_parameters": sum(math.prod(shape) for shape in shapes.values()), "total_size": sum(sizes.values())}
        index = {"metadata": total, "weight_map": dict(sorted(split.tensor_to_filename.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
