"""`mecellem convert export CHECKPOINT FOLDER`: any Megatron checkpoint to a Hugging Face folder that has been verified."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import atomic_folder, sha256_of
from mecellem.flags import parse_and_call
from mecellem.tokenizer_files import copy_tokenizer

if TYPE_CHECKING:
    import torch

    from conversion.verify import Verification

DtypeName = Literal["stored", "float32", "bfloat16"]


def export_checkpoint(
    checkpoint: Path,
    folder: Path,
    tokenizer: Path | None = None,
    dtype: DtypeName = "stored",
    replace: bool = False,
) -> Verification:
    """Write `folder` (ModernBertForMaskedLM, tokenizer, config, model card, `verification.json`) and return the proof.

    `tokenizer`: a folder to use instead of the checkpoint's own, which must have the same vocabulary. `dtype`: type of the
    weights in the folder, by default as the checkpoint stores them. Raises `UserError`, and leaves no folder, when the
    checkpoint is damaged, the tokenizer is another one, the disk is full, or the result differs from the Megatron model.
    """
    from megatron_recipes.engine.checkpoint import read_meta
    from megatron_recipes.engine.parallel import single_process

    checkpoint, folder = Path(checkpoint), Path(folder)
    meta = read_meta(checkpoint)
    source = check_tokenizer(tokenizer or checkpoint / "tokenizer", meta.model.vocab_size, meta.tokenizer_sha256)
    with atomic_folder(folder, replace=replace) as temporary, single_process():
        from conversion.megatron_model import load_whole
        from conversion.model_card import write_card
        from conversion.verify import require_passed, verify_folder

        module, meta = load_whole(checkpoint)
        target = _write_weights(module, meta, temporary, source, dtype)
        copy_tokenizer(source, temporary)
        # a folder in a smaller type than the checkpoint's holds rounded weights: it is compared with the same rounding
        result = verify_folder(module.to(target), temporary, meta.step, meta.tokens)
        require_passed(result, folder)
        (temporary / "verification.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
        write_card(temporary, meta, result)
    return result


def check_tokenizer(folder: Path, vocab_size: int, sha256: str) -> Path:
    """Return `folder` if its tokenizer is the checkpoint's, else raise a `UserError` that says what differs."""
    from megatron_recipes.data.corpus import SpecialTokens

    special = SpecialTokens.read(folder)
    if special.vocab_size > vocab_size:
        raise UserError(
            f"the tokenizer in {folder} has {special.vocab_size:,} entries, the checkpoint's embedding {vocab_size:,}: "
            "give the tokenizer that the checkpoint was trained with (--tokenizer)"
        )
    found = sha256_of(folder / "tokenizer.json")
    if found != sha256:
        raise UserError(
            f"{folder}/tokenizer.json is not the tokenizer that the checkpoint was trained with (SHA-256 {found[:12]}…, "
            f"expected {sha256[:12]}…): its ids would mean other words; give the right one with --tokenizer"
        )
    return folder


def _write_weights(module: object, meta: object, temporary: Path, tokenizer: Path, dtype: DtypeName) -> torch.dtype:
    """`config.json` and `model.safetensors` through transformers' own class, so that it is what it loads; their type."""
    import torch
    from transformers import ModernBertForMaskedLM
    from transformers.utils.logging import disable_progress_bar

    from conversion.hf_config import to_hf_config, tokenizer_ids
    from conversion.mapping import to_hf
    from megatron_recipes.engine.checkpoint import CheckpointMeta

    assert isinstance(module, torch.nn.Module) and isinstance(meta, CheckpointMeta)
    disable_progress_bar()
    state = to_hf(module.state_dict(), meta.model)
    stored = next(iter(state.values())).dtype
    target = stored if dtype == "stored" else getattr(torch, dtype)
    config = to_hf_config(meta.model, tokenizer_ids(tokenizer), str(target).removeprefix("torch."))
    with torch.device("meta"):
        hf = ModernBertForMaskedLM(config)
    state = {name: weight.to(target) for name, weight in state.items()}
    state["decoder.weight"] = state["model.embeddings.tok_embeddings.weight"]
    missing, unexpected = hf.load_state_dict(state, strict=False, assign=True)
    assert not unexpected and not missing, (missing, unexpected)
    hf.tie_weights()
    hf.save_pretrained(str(temporary))
    return target


def export(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    folder: Annotated[Path, tyro.conf.Positional],
    tokenizer: Path | None = None,
    dtype: DtypeName = "stored",
    replace: bool = False,
) -> None:
    """Convert a Megatron checkpoint to a Hugging Face folder, compare the two on real text, refuse what differs.

    Args:
        checkpoint: a `RUN/checkpoints/step_NNNNNNN` folder, written on any layout.
        folder: the Hugging Face folder to write.
        tokenizer: tokenizer folder, by default the one inside the checkpoint.
        dtype: type of the weights, by default as the checkpoint stores them.
        replace: overwrite an existing folder.
    """
    with step("convert export", reads=[checkpoint], writes=[folder]) as out:
        result = export_checkpoint(checkpoint, folder, tokenizer, dtype, replace)
        out.print(
            f"verified against the Megatron model on {result.tokens_compared:,} tokens: largest logit difference "
            f"{result.max_logit_difference:.1e} (allowed {result.tolerance:.1e}), top-1 agreement {result.top1_agreement:.1%}"
        )


def main(argv: Sequence[str]) -> None:
    """The command."""
    parse_and_call(export, argv, "mecellem convert export")
