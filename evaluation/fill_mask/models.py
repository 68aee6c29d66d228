"""Masked language models from either format, checked before they are loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.cache import Cache
from evaluation.model_files import ModelFiles, hugging_face_folder
from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.tokenizer_files import read_json, read_vocabulary
from megatron_recipes.run_folder import CHECKPOINT, TOKENIZER
from post_training.model_folder import load_masked_lm, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHIFTED = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet")  # positions are counted from pad_token_id + 1
CAUSAL = "a causal model is evaluated with `mecellem evaluate perplexity`"


@dataclass(frozen=True, slots=True)
class MaskedModel(ModelFiles):
    """A masked language model; special tokens count among its positions."""

    @property
    def tokenizer_sha256(self) -> str:
        """SHA-256 of its `tokenizer.json`."""
        return sha256_of(self.tokenizer / "tokenizer.json")


def check_models(folders: Sequence[Path]) -> list[MaskedModel]:
    """All models, checked without loading weights. Raises `UserError`, also for a tokenizer without a mask token."""
    if not folders:
        raise UserError("no model was given: name one or more Hugging Face folders or Megatron checkpoints")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a model folder is named twice: name each one once")
    return [check_model(folder) for folder in folders]


def check_model(folder: Path) -> MaskedModel:
    """What `folder` is. Raises `UserError` when it is no masked language model with weights and a tokenizer."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a Hugging Face model folder or a .../checkpoints/step_NNNNNNN")
    if (folder / CHECKPOINT).is_file():
        found = _check_checkpoint(folder)
    elif (folder / "run.yaml").is_file():
        raise UserError(f"{folder} is a run, not a model: give one of its checkpoints, {folder}/checkpoints/step_NNNNNNN")
    else:
        found = _check_hugging_face(folder)
    entries = read_vocabulary(found.tokenizer).size
    if entries > found.vocabulary:
        raise UserError(
            f"{found.tokenizer / 'tokenizer.json'} has token ids up to {entries - 1:,} but the model's embedding has "
            f"{found.vocabulary:,} rows: copy the tokenizer that the model was trained with there"
        )
    open_tokenizer(found)
    return found


def _check_checkpoint(folder: Path) -> MaskedModel:
    from megatron_recipes.config import EncoderConfig
    from megatron_recipes.engine.checkpoint import damage, read_meta

    fault = damage(folder)
    if fault is not None:
        raise UserError(f"{folder} cannot be loaded, the checkpoint is damaged: {fault}; use another one")
    model = read_meta(folder).model
    if not isinstance(model, EncoderConfig):
        raise UserError(f"{folder} holds a decoder, which fills no masks: {CAUSAL}")
    return MaskedModel(folder, "megatron", folder / TOKENIZER, model.vocab_size, model.max_sequence_length)


def _check_hugging_face(folder: Path) -> MaskedModel:
    from conversion.safetensors_folder import SafetensorsReader

    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} has neither config.json nor {CHECKPOINT}: give a Hugging Face model folder or a Megatron checkpoint"
        )
    config = read_json(folder / "config.json")
    names = config.get("architectures") or ["none"]
    if not str(names[0]).endswith("ForMaskedLM"):
        raise UserError(
            f"{folder / 'config.json'} is of {names[0]}, which has no head that fills masks: give a masked language model; "
            f"{CAUSAL}"
        )
    rows, positions = (config.get(name) for name in ("vocab_size", "max_position_embeddings"))
    if not isinstance(rows, int) or not isinstance(positions, int):
        raise UserError(f"{folder / 'config.json'} has no vocab_size or no max_position_embeddings: write the folder again")
    if config.get("model_type") in SHIFTED:
        positions -= int(config.get("pad_token_id") or 0) + 1
    SafetensorsReader(folder)
    return MaskedModel(folder, "hugging_face", folder, rows, positions)


def open_tokenizer(model: MaskedModel) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises `UserError` for one without a mask token or that cannot tell where its tokens lie."""
    tokenizer = load_tokenizer(model.tokenizer)
    if tokenizer.mask_token_id is None:
        raise UserError(f"{model.tokenizer}: the tokenizer has no mask token, which fill-mask needs: {CAUSAL}")
    if not tokenizer.is_fast:
        raise UserError(f"{model.tokenizer}: the tokenizer has no offsets: save it as a fast one, with tokenizer.json")
    return tokenizer


def load_model(model: MaskedModel, store: Cache, device: str) -> Any:
    """The model in fp32, in evaluation mode. Raises `UserError` for an architecture whose head cannot be run alone."""
    loaded = load_masked_lm(hugging_face_folder(model, store), device)
    if getattr(loaded, "base_model", loaded) is loaded:
        raise UserError(f"{model.folder}: {type(loaded).__name__} has no encoder apart from its head, which fill-mask needs")
    return loaded


def count_parameters(folder: Path) -> int:
    """Weights stored in a Hugging Face folder; tied ones are stored once."""
    from conversion.safetensors_folder import SafetensorsReader

    return sum(math.prod(shape) for shape in SafetensorsReader(folder).shapes.values())
