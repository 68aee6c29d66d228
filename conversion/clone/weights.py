"""The weights of a clone: the teacher's files again with new tensors for the vocabulary, then read back and compared.

What is not of the vocabulary goes from a map of the teacher's file into the new one, so that of the model only the new tensors
are ever in memory (in another type: one file's tensors).
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from conversion.clone.alignment import Alignment, Kind
from conversion.clone.combination import Combination, Composer
from conversion.clone.vocabulary_tensors import VocabularyTensors
from conversion.hf_import import same_values
from conversion.safetensors_folder import BLOCK_BYTES, INDEX, SafetensorsReader
from mecellem.errors import UserError

Cast = torch.dtype | None  # the type of every float tensor; None leaves each in its own
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def cast(tensor: torch.Tensor, dtype: Cast) -> torch.Tensor:
    """A tensor in `dtype`; one of integers as it is."""
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def check_tensors(reader: SafetensorsReader, vocabulary: VocabularyTensors) -> None:
    """Raise `UserError` for tensors of the vocabulary in other types than floats, and for copies that differ from theirs."""
    for name in vocabulary.all:
        if reader.rows(name, 0, 1).dtype not in FLOATS:
            raise UserError(
                f"{reader.files[name]}: {name} is {reader.types[name]}: convert the folder to float32 or bfloat16 first"
            )
    for name, original in vocabulary.copies.items():
        if not same_values(reader, name, original):
            raise UserError(
                f"{reader.files[name]}: {name} differs from {original}, though config.json ties them (tie_word_embeddings): "
                "one of the two is wrong; get the folder again, or set tie_word_embeddings to false if the head is its own"
            )


def write_weights(
    reader: SafetensorsReader,
    vocabulary: VocabularyTensors,
    combination: Combination,
    composer: Callable[[str], Composer],
    out: Path,
    dtype: Cast,
) -> None:
    """Write the files of weights into `out`, each with the name and the tensors of the teacher's."""
    from safetensors.torch import save_file

    kept = [name for name in reader.files if name not in vocabulary.copies]
    total, parameters = 0, 0
    for path in dict.fromkeys(reader.files[name] for name in kept):
        tensors = {}
        for name in (name for name in kept if reader.files[name] == path):
            tensor = reader.tensor(name)
            if name in vocabulary.all:
                tensors[name] = new_tensor(composer(name), combination, dtype or tensor.dtype)
            else:
                tensors[name] = cast(tensor, dtype)
                refuse_lost_numbers(f"{path}: {name}", tensor, tensors[name])
        save_file(tensors, out / path.name, metadata={"format": "pt"})
        shutil.copymode(out / "config.json", out / path.name)  # safetensors writes for the owner alone
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        parameters += sum(tensor.numel() for tensor in tensors.values())
    if (reader.folder / INDEX).exists():
        names = {name: reader.files[name].name for name in sorted(kept)}
        index = {"metadata": {"total_parameters": parameters, "total_size": total}, "weight_map": names}
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def refuse_lost_numbers(name: str, teachers: torch.Tensor, new: torch.Tensor) -> None:
    """Raise `UserError` for NaN, and for infinities that the teacher has not. (Masks are infinite in some models' files.)"""
    if not new.is_floating_point() or bool(torch.isfinite(new).all()):
        return
    if bool(torch.isnan(new).any()):
        raise UserError(f"{name} has NaN: the teacher's weights are damaged, get the folder again")
    if not bool(torch.isinf(teachers).any()):
        raise UserError(f"{name} has numbers beyond {str(new.dtype).removeprefix('torch.')}: choose another --dtype")


def new_tensor(composer: Composer, combination: Combination, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of the vocabulary `[new entries, ...]`."""
    result = torch.empty(combination.size, *composer.table.shape[1:], dtype=dtype)
    start = 0
    for block in composer.blocks(combination, dtype):
        result[start : start + len(block)] = block
        start += len(block)
    assert start == len(result), (start, len(result))
    return result


def digest(reader: SafetensorsReader, names: Iterable[str], dtype: Cast = None) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, cast to `dtype`."""
    found = hashlib.sha256()
    for name in sorted(names):
        tensor = reader.tensor(name)
        kind = cast(torch.empty(0, dtype=tensor.dtype), dtype).dtype
        found.update(f"{name} {kind} {tuple(tensor.shape)}\n".encode())
        for part in tensor.reshape(-1).split(BLOCK_BYTES // 4):
            found.update(cast(part, dtype).contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def verify_weights(
    reader: SafetensorsReader, out: Path, vocabulary: VocabularyTensors, alignment: Alignment, dtype: Cast
) -> dict[str, object]:
    """Read the clone back: the backbone has the teacher's bits, and so has every row that was taken over. Facts for the record.

    Raises `UserError` for a clone that is not what was meant to be written.
    """
    written = SafetensorsReader(out)
    backbone = [name for name in reader.shapes if name not in (*vocabulary.all, *vocabulary.copies)]
    before, after = digest(reader, backbone, dtype), digest(written, backbone)
    taken = np.flatnonzero((alignment.kinds == Kind.COPIED) | (alignment.kinds == Kind.SPECIAL))
    sources = torch.from_numpy(alignment.pieces[alignment.offsets[taken]])
    rows = torch.from_numpy(taken)
    for name in vocabulary.all:
        old, new = reader.tensor(name), written.tensor(name)
        step = max(1, BLOCK_BYTES // (4 * max(1, math.prod(old.shape[1:]))))
        same = all(
            torch.equal(cast(old[a], dtype).view(torch.uint8), new[b].view(torch.uint8))
            for a, b in zip(sources.split(step), rows.split(step), strict=True)
        )
        finite = all(bool(torch.isfinite(part).all()) for part in new.split(step))
        if not same or not finite or len(new) != len(alignment.kinds):
            raise UserError(
                f"{out.name} was not written: {name} is not as it was composed; the disk may be damaged, try another"
            )
    if before != after or set(written.shapes) != {*backbone, *vocabulary.all}:
        raise UserError(
            f"{out.name} was not written: a tensor beside the vocabulary differs from the teacher's; try another disk"
        )
    parameters = {
        "teacher": sum(math.prod(shape) for name, shape in reader.shapes.items() if name not in vocabulary.copies),
        "clone": sum(math.prod(shape) for shape in written.shapes.values()),
    }
    return {
        "backbone": {"tensors": len(backbone), "sha256": after, "same_bits_as_the_teacher": dtype is None},
        "rows_with_the_teachers_bits": len(taken),
        "parameters": parameters,
    }
