"""`mecellem convert import FOLDER CHECKPOINT --tp --pp`: a Hugging Face ModernBERT as a Megatron checkpoint, verified."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import atomic_folder, sha256_of
from mecellem.flags import parse_and_call
from megatron_recipes.config import ModelConfig, ParallelConfig
from megatron_recipes.engine.launch import python_command, rank_from_environment, start_ranks


def read_source(folder: Path) -> tuple[ModelConfig, str]:
    """The model's shape and precision. Raises `UserError` for a folder that is not a ModernBERT with a tokenizer."""
    from conversion.hf_config import from_hf_config, read_hf_config
    from megatron_recipes.data.corpus import SpecialTokens

    config = read_hf_config(folder)
    model = from_hf_config(config, folder)
    special = SpecialTokens.read(folder)
    if special.vocab_size > model.vocab_size:
        raise UserError(
            f"the tokenizer in {folder} has {special.vocab_size:,} entries, the embedding only {model.vocab_size:,}: "
            "the folder's tokenizer belongs to another model"
        )
    dtype = str(config.dtype).removeprefix("torch.")
    if dtype not in ("float32", "bfloat16", "None"):
        raise UserError(f"{folder}/config.json says dtype {dtype}: convert the folder to float32 or bfloat16 first")
    return model, "bf16" if dtype == "bfloat16" else "fp32"


def import_folder(folder: Path, checkpoint: Path, tp: int = 1, pp: int = 1) -> None:
    """Write `checkpoint` from a Hugging Face folder with `tp` x `pp` ranks; it loads on any layout.

    The ranks' files are read back as one model and compared with the folder in plain transformers; a checkpoint that
    differs gets no name. Raises `UserError` for unsupported folders and layouts, and for a full disk.
    """
    model, _ = read_source(folder)
    ParallelConfig(tensor=tp, pipeline=pp).check(model, model.max_sequence_length)
    with atomic_folder(checkpoint) as temporary:
        written = temporary / "checkpoint"
        command = python_command("conversion.hf_import", [str(folder), str(written), "--tp", str(tp), "--pp", str(pp)])
        code = start_ranks(command, tp * pp, on_cpu=True)
        if code != 0:
            raise UserError(f"{checkpoint} was not written: a rank ended with code {code} (its message is above)")
        _verify(folder, written, checkpoint)
        for item in written.iterdir():
            item.rename(temporary / item.name)
        written.rmdir()


def _verify(folder: Path, written: Path, checkpoint: Path) -> None:
    from megatron_recipes.engine.parallel import single_process

    with single_process():
        from conversion.megatron_model import load_whole
        from conversion.verify import require_passed, verify_folder

        module, meta = load_whole(written)
        require_passed(verify_folder(module, folder, meta.step, meta.tokens), checkpoint)


def write_as_rank(folder: Path, checkpoint: Path, tp: int, pp: int) -> None:
    """One rank's share of the import."""
    import torch

    from megatron_recipes.engine import checkpoint as checkpoints
    from megatron_recipes.engine.parallel import parallel_state

    place = rank_from_environment()
    assert place is not None, "started by import_folder"
    model, precision = read_source(folder)
    layout = ParallelConfig(tensor=tp, pipeline=pp)
    with parallel_state(place, layout, seed=0):
        from transformers import ModernBertForMaskedLM

        from conversion.mapping import to_megatron
        from conversion.megatron_model import build, fill_rank
        from megatron_recipes.models.modernbert import DTYPES

        torch.set_grad_enabled(False)
        hf = ModernBertForMaskedLM.from_pretrained(str(folder), dtype=DTYPES[precision])
        module = build(model, layout, DTYPES[precision])
        fill_rank(module, to_megatron(hf.state_dict(), model))
        del hf
        meta = checkpoints.CheckpointMeta(
            step=0,
            tokens=0,
            model=model,
            precision=precision,
            tokenizer_sha256=sha256_of(folder / "tokenizer.json"),
            layout=checkpoints.layout(),
            versions=checkpoints.versions(),
            recipe=folder.resolve().name,
        )
        checkpoints.save(checkpoint, meta, module, optimizer=None, tokenizer=folder)


def import_(
    folder: Annotated[Path, tyro.conf.Positional],
    checkpoint: Annotated[Path, tyro.conf.Positional],
    tp: int = 1,
    pp: int = 1,
) -> None:
    """Convert a Hugging Face ModernBERT folder to a Megatron checkpoint, read it back and compare it on real text.

    Args:
        folder: a ModernBertForMaskedLM with its tokenizer.
        checkpoint: the checkpoint folder to write.
        tp: tensor-parallel ranks that write it (it loads on any layout).
        pp: pipeline-parallel ranks that write it.
    """
    if rank_from_environment() is not None:
        write_as_rank(folder, checkpoint, tp, pp)
        return
    with step("convert import", reads=[folder], writes=[checkpoint]) as out:
        import_folder(folder, checkpoint, tp, pp)
        out.print(f"written by {tp} x {pp} ranks, read back as one model, equal to the folder on real text")


def main(argv: Sequence[str]) -> None:
    """The command."""
    parse_and_call(import_, argv, "mecellem convert import")


if __name__ == "__main__":
    from mecellem.cli import main as cli

    sys.exit(cli(["convert", "import", *sys.argv[1:]]))
