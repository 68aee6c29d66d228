"""`mecellem convert export CHECKPOINT FOLDER`: any Megatron checkpoint to a Hugging Face folder that has been verified."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from conversion.folder_files import check_tokenizer, return_companions
from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import atomic_folder
from mecellem.flags import parse_and_call
from megatron_recipes.retention import CHOSEN, KEEP, kept
from megatron_recipes.run_folder import CHECKPOINT, TOKENIZER

if TYPE_CHECKING:
    import torch

    from conversion.mapping import Entry
    from conversion.torch_dist import Chunk
    from conversion.verify import Verification
    from megatron_recipes.config import ModelConfig
    from megatron_recipes.engine.checkpoint import CheckpointMeta

DtypeName = Literal["stored", "float32", "bfloat16"]
COPY_BYTES = 512 << 10  # what is read and written at a time: between the two it stays in the core's cache


def hf_rows(model: ModelConfig, entry: Entry, parts: list[Chunk]) -> Iterator[tuple[str, list[Chunk]]]:
    """The Hugging Face tensors of a parameter with the rows of the checkpoint that each consists of, in its order."""
    from conversion.mapping import grouped_rows

    if entry.layout == "grouped":
        (chunk,) = parts
        for name, runs in zip(entry.hf, grouped_rows(chunk.shape[0], model, len(entry.hf)), strict=True):
            yield name, [chunk.rows(start, stop) for start, stop in runs]
        return
    per_tensor = len(parts) // len(entry.hf)  # a gated matrix is two chunks, of one tensor or of one each
    for number, name in enumerate(entry.hf):
        yield name, parts[number * per_tensor : (number + 1) * per_tensor]


def export_checkpoint(
    checkpoint: Path,
    folder: Path,
    tokenizer: Path | None = None,
    dtype: DtypeName = "stored",
    replace: bool = False,
    shard_bytes: int | None = None,
) -> Verification:
    """Write `folder` (weights, config, tokenizer, model card, `verification.json`) and return the proof.

    `tokenizer`: a folder to use instead of the checkpoint's own, which must have the same vocabulary. `dtype`: type of the
    weights in the folder, by default as the checkpoint stores them. `shard_bytes`: size of a weight file, by default 5 GB.
    Weights go through memory one tensor at a time. Raises `UserError`, and leaves no folder, when the checkpoint is damaged,
    the tokenizer is another one, the disk is full, or the result differs from the Megatron model.
    """
    from megatron_recipes.engine.checkpoint import damage, read_meta
    from megatron_recipes.engine.parallel import single_process

    checkpoint, folder = Path(checkpoint), Path(folder)
    meta = read_meta(checkpoint)
    fault = damage(checkpoint)
    if fault is not None:
        raise UserError(f"{checkpoint} cannot be loaded, the checkpoint is damaged: {fault}; use an older one")
    source = check_tokenizer(tokenizer or checkpoint / TOKENIZER, meta.model.vocab_size, meta.tokenizer_sha256)
    with atomic_folder(folder, replace, "overwrite it with --replace") as temporary, single_process():
        from conversion.model_card import write_card
        from conversion.verify import require_passed, verify_folder

        chunks, target = write_folder(checkpoint, meta, source, temporary, dtype, shard_bytes)
        # a folder in a smaller type than the checkpoint's holds rounded weights: it is compared with the same rounding
        result = verify_folder(checkpoint, temporary, meta.model, chunks, target, (meta.step, meta.tokens))
        require_passed(result, folder)
        (temporary / "verification.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
        write_card(temporary, meta, result)
    return result


def write_folder(
    checkpoint: Path, meta: CheckpointMeta, source: Path, folder: Path, dtype: DtypeName, shard_bytes: int | None
) -> tuple[dict[str, list[Chunk]], torch.dtype]:
    """Write weights, config and the tokenizer of `source` into `folder`, unverified. Inside `single_process`.

    Returns where each parameter is in the checkpoint, without vocabulary padding, and the type of the weights.
    """
    import torch

    from conversion.hf_config import special_ids, to_hf_config
    from conversion.hf_import import without_padding
    from conversion.mapping import entries, hf_shapes
    from conversion.megatron_model import outline
    from conversion.safetensors_folder import SHARD_BYTES, write_safetensors
    from conversion.torch_dist import TorchDistReader, parameter_chunks, row_shape

    model = meta.model
    chunks = without_padding(parameter_chunks(outline(model, torch.float32))[0], model)
    reader = TorchDistReader(checkpoint)
    stored = reader.check(chunks)
    target = stored if dtype == "stored" else getattr(torch, dtype)
    config = to_hf_config(model, special_ids(source, model), str(target).removeprefix("torch."))
    config.save_pretrained(str(folder))
    shapes = hf_shapes(model, {name: row_shape(parts) for name, parts in chunks.items()})
    with write_safetensors(folder, shapes, target, shard_bytes or SHARD_BYTES) as writer:
        for entry in entries(model):
            for name, parts in hf_rows(model, entry, chunks[entry.megatron]):
                writer.put(name, (block for part in parts for block in reader.blocks(part, COPY_BYTES)))
    return_companions(source, folder, config)
    return chunks, target


def chosen_checkpoint(run: Path) -> Path:
    """The checkpoint of a run that `mecellem select` marked. Raises `UserError` where there is none."""
    if (run / CHECKPOINT).exists():
        raise UserError(f"{run} is a checkpoint already: leave --chosen out, or give its run, {run.parent.parent}")
    marked = [name for name, reason in kept(run).items() if reason.startswith(CHOSEN)]
    if not marked:
        raise UserError(f"no checkpoint of {run} has been chosen: `mecellem select {run}` does, or give a checkpoint's folder")
    found = run / "checkpoints" / marked[0]
    if not found.is_dir():
        raise UserError(
            f"{run / 'checkpoints' / KEEP}: {marked[0]} was chosen and is gone: `mecellem select {run}` chooses again"
        )
    return found


def bytes_of(size: str) -> int:
    """`5GB` -> 5,000,000,000, as transformers' `max_shard_size` reads it. Raises `UserError` for what is no size."""
    from huggingface_hub.serialization._base import parse_size_to_int

    try:
        found = parse_size_to_int(size)
    except (ValueError, OverflowError):  # OverflowError: of an infinite one
        found = 0
    if found <= 0:
        raise UserError(f"--shard-size {size} is no size of a file: give a number with KB, MB, GB or TB, like 5GB")
    return found


def export(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    folder: Annotated[Path, tyro.conf.Positional],
    tokenizer: Path | None = None,
    dtype: DtypeName = "stored",
    shard_size: str = "5GB",
    replace: bool = False,
    chosen: bool = False,
) -> None:
    """Convert a Megatron checkpoint to a Hugging Face folder, compare the two on real text, refuse what differs.

    Args:
        checkpoint: a `RUN/checkpoints/step_NNNNNNN` folder, written on any layout; with --chosen a RUN.
        folder: the Hugging Face folder to write.
        tokenizer: tokenizer folder, by default the one inside the checkpoint.
        dtype: type of the weights, by default as the checkpoint stores them.
        shard_size: largest size of a file of weights (KB, MB, GB or TB); a tensor that is larger gets a file of its own.
        replace: overwrite an existing folder.
        chosen: export the checkpoint of the run that `mecellem select` chose.
    """
    checkpoint = chosen_checkpoint(checkpoint) if chosen else checkpoint
    shard_bytes = bytes_of(shard_size)
    with step("convert export", reads=[checkpoint], writes=[folder]) as out:
        result = export_checkpoint(checkpoint, folder, tokenizer, dtype, replace, shard_bytes)
        out.print(result.sentence(), markup=False)


def main(argv: Sequence[str]) -> None:
    """Entry point of `mecellem convert export`."""
    parse_and_call(export, argv, "mecellem convert export")
