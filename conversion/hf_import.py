"""`mecellem convert import SOURCE CHECKPOINT`: a Hugging Face model as a Megatron checkpoint for any layout, verified."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from conversion.folder_files import check_tokenizer, keep_companions
from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import atomic_folder, sha256_of
from mecellem.flags import parse_and_call
from megatron_recipes.config import DecoderConfig, ModelConfig, as_flags, flatten
from megatron_recipes.run_folder import CHECKPOINT, TOKENIZER

if TYPE_CHECKING:
    import torch

    from conversion.safetensors_folder import SafetensorsReader
    from conversion.torch_dist import Chunk
    from conversion.verify import Verification

# fields that the shapes of the weights do not depend on
SAME_WEIGHTS = ("model.max_sequence_length", "model.rope_theta", "model.rope_scaling.", "model.norm_epsilon")


def read_source(folder: Path) -> tuple[ModelConfig, SafetensorsReader]:
    """The shape and the weights' headers of a folder. Raises `UserError` for all that they tell of what cannot be converted.

    (Whether the tensors are the architecture's is for `write_checkpoint` to see.)
    """
    from conversion.hf_config import from_hf_config, read_hf_config, special_ids
    from conversion.mapping import tied_head
    from conversion.safetensors_folder import SafetensorsReader
    from megatron_recipes.config import EncoderConfig

    model = from_hf_config(read_hf_config(folder), folder)
    reader = SafetensorsReader(folder)
    check_tokenizer(folder, model.vocab_size)
    if isinstance(model, EncoderConfig):
        special_ids(folder, model)
    tied = tied_head(model)
    if tied is not None and tied[0] in reader.shapes:
        require_tied(reader, *tied)
    reader.dtype()
    return model, reader


def require_tied(reader: SafetensorsReader, name: str, original: str) -> None:
    """Leave a copy of a tied weight out, after a look at it: a folder whose copy differs means two different models."""
    if original in reader.shapes and not same_values(reader, name, original):
        raise UserError(
            f"{reader.files[name]}: {name} differs from {original}, though config.json ties them (tie_word_embeddings): one of "
            "the two is wrong; get the folder again, or set tie_word_embeddings to false if the head is meant to be its own"
        )
    for values in (reader.files, reader.shapes, reader.types):
        del values[name]


def same_values(reader: SafetensorsReader, name: str, other: str) -> bool:
    """Whether two tensors are equal, read block by block: both at once would take twice the memory of the largest."""
    from conversion.safetensors_folder import BLOCK_BYTES

    shape = reader.shapes[name]
    if shape != reader.shapes[other]:
        return False
    count = max(1, BLOCK_BYTES // (4 * math.prod(shape[1:])))
    return all(
        bool((reader.rows(name, start, stop) == reader.rows(other, start, stop)).all())
        for start in range(0, shape[0], count)
        for stop in (min(start + count, shape[0]),)
    )


def check_recipe(name: str, model: ModelConfig, source: Path) -> None:
    """Raise `UserError` that names every field in which a folder's shape is not the recipe's.

    The positions that it declares may differ (Qwen3-1.7B 40,960, its Base 32,768): training then asks for them.
    """
    from megatron_recipes.recipes import find_recipe

    wanted = find_recipe(name)().model
    if type(wanted) is not type(model):
        raise UserError(f"{source} is no model of the kind that recipe {name} trains")
    found, expected = flatten(model), flatten(wanted)
    fields = [field for field in found if field not in ("max_sequence_length", "init_std")]
    different = [f"{field} {found[field]} instead of {expected[field]}" for field in fields if found[field] != expected[field]]
    if different:
        raise UserError(f"{source} has not the shape of recipe {name}: {', '.join(different)}")


def flags_to_start(model: ModelConfig, recipe: str | None = None) -> dict[str, str]:
    """What a run must set to start from an imported decoder, by recipe: those whose weights have its shape, or only `recipe`.

    Recipes that start from it as they are are left out.
    """
    from megatron_recipes.engine.refusals import unlike
    from megatron_recipes.recipes import RECIPES, find_recipe

    found = {}
    for name in RECIPES if recipe is None else [recipe]:
        wanted = find_recipe(name)().model
        if not isinstance(model, DecoderConfig) or not isinstance(wanted, DecoderConfig):
            continue
        values = unlike(wanted, model)
        if values and all(field.startswith(SAME_WEIGHTS) for field in values):
            found[name] = as_flags(values)
    return found


def megatron_tensors(
    reader: SafetensorsReader, model: ModelConfig, chunks: dict[str, list[Chunk]]
) -> Iterator[tuple[Chunk, Callable[[], torch.Tensor]]]:
    """Every chunk of the checkpoint with the function that makes its tensor from the folder."""
    import torch

    from conversion.mapping import entries, group

    for entry in entries(model):
        parts = chunks[entry.megatron]
        if entry.layout == "grouped":
            (chunk,) = parts
            yield chunk, lambda names=entry.hf: group([reader.tensor(name) for name in names], model)  # type: ignore[misc]
        elif entry.vocabulary:
            (chunk,) = parts
            (name,) = entry.hf
            yield chunk.rows(0, model.vocab_size), lambda name=name: reader.tensor(name)  # type: ignore[misc]
            if chunk.shape[0] > model.vocab_size:
                padding = chunk.rows(model.vocab_size, chunk.shape[0])
                yield padding, lambda shape=padding.shape: torch.zeros(shape, dtype=reader.dtype())  # type: ignore[misc]
        else:
            per_tensor = len(parts) // len(entry.hf)  # a gated matrix is two chunks, of one tensor or of one each
            for number, chunk in enumerate(parts):
                name, start = entry.hf[number // per_tensor], number % per_tensor * chunk.shape[0]
                yield chunk, lambda name=name, a=start, b=start + chunk.shape[0]: reader.rows(name, a, b)  # type: ignore[misc]


def import_folder(folder: Path, checkpoint: Path, recipe: str | None = None, name: str | None = None) -> Verification:
    """Write `checkpoint` (weights, tokenizer, step 0) from a Hugging Face folder and return the proof that it is the model.

    `recipe`: whose model it must be. `name`: of the model, for the record; by default the folder's. Weights go through
    memory one tensor at a time, and the checkpoint loads on any layout. Raises `UserError`, and leaves nothing, for a folder
    that cannot be converted, for a full disk, and for a checkpoint that computes something else than the folder.
    """
    model, reader = read_source(folder)
    if recipe is not None:
        check_recipe(recipe, model, folder)
    from megatron_recipes.engine.parallel import single_process

    with atomic_folder(checkpoint) as temporary, single_process():
        from conversion.verify import require_passed, verify_folder

        chunks = write_checkpoint(temporary, model, reader, name or folder.resolve().name)
        result = verify_folder(temporary, folder, model, chunks, reader.dtype())
        require_passed(result, checkpoint)
    return result


def write_checkpoint(target: Path, model: ModelConfig, reader: SafetensorsReader, name: str) -> dict[str, list[Chunk]]:
    """Write the checkpoint of a folder that `read_source` has read into `target`, unverified. Inside `single_process`.

    Returns where each parameter is, without vocabulary padding. Raises `UserError`, before it writes, for tensors that are
    not those of the architecture.
    """
    from conversion.mapping import hf_shapes
    from conversion.megatron_model import outline
    from conversion.torch_dist import parameter_chunks, row_shape, write_tensors
    from megatron_recipes.engine import checkpoint as checkpoints

    chunks, objects = parameter_chunks(outline(model, reader.dtype()))
    unpadded = without_padding(chunks, model)
    reader.check(hf_shapes(model, {name: row_shape(parts) for name, parts in unpadded.items()}))
    write_tensors(target, megatron_tensors(reader, model, chunks), reader.dtype(), objects)
    keep_companions(reader.folder, target / TOKENIZER)
    meta = checkpoints.CheckpointMeta(
        step=0,
        tokens=0,
        model=model,
        precision="bf16" if reader.dtype().itemsize == 2 else "fp32",
        tokenizer_sha256=sha256_of(reader.folder / "tokenizer.json"),
        layout=checkpoints.layout(),
        versions=checkpoints.versions(),
        name=name,
    )
    (target / CHECKPOINT).write_text(meta.to_json(checkpoints.file_sizes(target)), encoding="utf-8")
    return unpadded


def without_padding(chunks: dict[str, list[Chunk]], model: ModelConfig) -> dict[str, list[Chunk]]:
    """The chunks of every parameter, without the rows that only pad the vocabulary."""
    from conversion.mapping import entries

    padded = {entry.megatron for entry in entries(model) if entry.vocabulary}
    return {
        name: [part.rows(0, model.vocab_size) for part in parts] if name in padded else parts for name, parts in chunks.items()
    }


def import_(
    source: Annotated[str, tyro.conf.Positional],
    checkpoint: Annotated[Path, tyro.conf.Positional],
    recipe: str | None = None,
) -> None:
    """Convert a Hugging Face model to a Megatron checkpoint for any layout, and compare the two on real text.

    Args:
        source: a folder (ModernBERT, Qwen3 or Llama, with its tokenizer), or a model of the Hugging Face Hub by its id.
        checkpoint: the checkpoint folder to write.
        recipe: a recipe whose model the source must be.
    """
    from conversion.source import find_folder
    from megatron_recipes.engine.checkpoint import read_meta

    folder = find_folder(source)
    with step("convert import", reads=[folder], writes=[checkpoint]) as out:
        result = import_folder(folder, checkpoint, recipe, Path(source).resolve().name)
        out.print(result.sentence(), markup=False)
        model = read_meta(checkpoint).model
        for trained_by, flags in flags_to_start(model, recipe).items():
            out.print(f"a run of {trained_by} with --init-from {checkpoint} needs {flags}", markup=False)


def main(argv: Sequence[str]) -> None:
    """Entry point of `mecellem convert import`."""
    parse_and_call(import_, argv, "mecellem convert import")
