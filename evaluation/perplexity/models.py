"""Causal models from either format, checked before they are loaded, asked for one thing: the losses of given tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evaluation.model_files import ModelFiles
from mecellem.errors import UserError
from mecellem.tokenizer_files import read_json, read_vocabulary
from megatron_recipes.run_folder import CHECKPOINT, TOKENIZER
from post_training.model_folder import check_whole, load_tokenizer, quiet_transformers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class ModelSource(ModelFiles):
    """A causal language model."""


class Scorer(Protocol):
    """A loaded model."""

    def losses(self, ids: torch.Tensor, last: int) -> torch.Tensor:
        """`ids` `[b, s + 1]` -> the losses `[b, last]` of their last tokens in nats, fp32, each after all before it."""
        ...


def check_model(folder: Path) -> ModelSource:
    """What `folder` is. Raises `UserError` when it is no causal language model with weights and a tokenizer."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a Hugging Face model folder or a .../checkpoints/step_NNNNNNN")
    if (folder / CHECKPOINT).is_file():
        return _check_checkpoint(folder)
    if (folder / "run.yaml").is_file():
        raise UserError(f"{folder} is a run, not a model: give one of its checkpoints, {folder}/checkpoints/step_NNNNNNN")
    return _check_hugging_face(folder)


def _check_checkpoint(folder: Path) -> ModelSource:
    from megatron_recipes.config import DecoderConfig
    from megatron_recipes.engine.checkpoint import damage, read_meta

    fault = damage(folder)
    if fault is not None:
        raise UserError(f"{folder} cannot be loaded, the checkpoint is damaged: {fault}; use another one")
    model = read_meta(folder).model
    if not isinstance(model, DecoderConfig):
        raise UserError(f"{folder} holds a masked language model, without perplexity: use `mecellem evaluate` for it")
    tokenizer = _check_tokenizer(folder / TOKENIZER, model.vocab_size)
    return ModelSource(folder, "megatron", tokenizer, model.vocab_size, model.max_sequence_length)


def _check_hugging_face(folder: Path) -> ModelSource:
    from conversion.safetensors_folder import SafetensorsReader

    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} has neither config.json nor {CHECKPOINT}: give a Hugging Face model folder or a Megatron checkpoint"
        )
    config = read_json(folder / "config.json")
    names = config.get("architectures") or ["none"]
    if not str(names[0]).endswith(("ForCausalLM", "LMHeadModel")):
        raise UserError(f"{folder / 'config.json'} is of {names[0]}, which has no perplexity: give a causal language model")
    rows, positions = (config.get(name) for name in ("vocab_size", "max_position_embeddings"))
    if not isinstance(rows, int) or not isinstance(positions, int):
        raise UserError(f"{folder / 'config.json'} has no vocab_size or no max_position_embeddings: write the folder again")
    SafetensorsReader(folder)
    return ModelSource(folder, "hugging_face", _check_tokenizer(folder, rows), rows, positions)


def _check_tokenizer(folder: Path, rows: int) -> Path:
    """The folder, once its `tokenizer.json` is known to fit an embedding of `rows` rows."""
    entries = read_vocabulary(folder).size
    if entries > rows:
        raise UserError(
            f"{folder / 'tokenizer.json'} has token ids up to {entries - 1:,} but the model's embedding has {rows:,} rows: "
            "copy the tokenizer that the model was trained with there"
        )
    return folder


def open_tokenizer(source: ModelSource) -> tuple[PreTrainedTokenizerBase, int]:
    """The model's tokenizer and the token in front of every document: BOS, else EOS (as lm-evaluation-harness does).

    Raises `UserError` for a tokenizer that has neither.
    """
    tokenizer: Any = load_tokenizer(source.tokenizer)
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if start is not None:
            return tokenizer, int(start)
    raise UserError(
        f"{source.tokenizer} names neither a bos_token nor an eos_token, so a document's first token would have no context: "
        "set one in tokenizer_config.json"
    )


class HuggingFaceScorer:
    """A model of the transformers library."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        from transformers import AutoModelForCausalLM

        with quiet_transformers():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype, use_safetensors=True)
        check_whole(model)
        self.model = model.to(device).eval()

    def losses(self, ids: torch.Tensor, last: int) -> torch.Tensor:
        """As `Scorer.losses`."""
        import torch.nn.functional as F

        logits = self.model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=last).logits
        # entries in the last dimension: along another one torch adds them one by one, which is 1e-4 off for 50,000 of them
        losses = F.cross_entropy(logits.float().flatten(0, 1), ids[:, -last:].flatten(), reduction="none")
        return losses.view(-1, last)


class MegatronScorer:
    """A checkpoint of any layout as one Megatron-Core model. Lives inside `single_process`."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        from conversion.megatron_model import build
        from megatron_recipes.config import ParallelConfig
        from megatron_recipes.engine import checkpoint

        self.model = build(checkpoint.read_meta(folder).model, ParallelConfig(), dtype)
        checkpoint.load_weights(folder, self.model)
        self.model.to(device).eval()

    def losses(self, ids: torch.Tensor, last: int) -> torch.Tensor:
        """As `Scorer.losses`."""
        labels = ids[:, 1:].clone()
        labels[:, :-last] = -100
        losses: torch.Tensor = self.model(ids[:, :-1].contiguous(), labels=labels)
        return losses[:, -last:]


@contextmanager
def open_model(source: ModelSource, dtype: str, device: str) -> Iterator[Scorer]:
    """The model for the time of the block."""
    import torch

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    if source.kind == "hugging_face":
        yield HuggingFaceScorer(source.folder, kind, device)
        return
    from megatron_recipes.engine.parallel import single_process

    with single_process():
        yield MegatronScorer(source.folder, kind, device)
