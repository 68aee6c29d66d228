"""What a training starts from, or is guided by: any kind of model folder as a sentence-transformers model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.module_folders import MODULES
from post_training.exports import exported
from post_training.model_folder import PoolingName, check_model_folder, check_whole, pick_device, quiet_transformers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

WEIGHTS_AND_SETTINGS = (".json", ".safetensors", ".txt", ".model", ".bin")
# say something about the model, and change nothing in it
NOTES = ("verification.json", "post_training.json", "distillation.json", "clone.json", "README.md")


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """A model that was found and checked. `folder` is what is loaded: of a Megatron checkpoint, its export."""

    source: str
    folder: Path
    kind: Literal["hugging_face", "sentence_transformers"]

    @property
    def sha256(self) -> str:
        """SHA-256 over names and contents of all files that decide what the model does."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.suffix in WEIGHTS_AND_SETTINGS and path.name not in NOTES:
                digest.update(f"{path.relative_to(self.folder)}:{sha256_of(path)}\n".encode())
        return digest.hexdigest()


def find_start(source: str | Path, cache: Path) -> StartingPoint:
    """The model that `source` names: a Hugging Face or sentence-transformers folder, a Megatron checkpoint or a hub id.

    A checkpoint is exported into `cache` once. Raises `UserError` for what is none of these, or not whole.
    """
    from megatron_recipes.run_folder import CHECKPOINT

    folder = Path(source)
    if (folder / CHECKPOINT).is_file():
        return StartingPoint(str(source), exported(folder, cache), "hugging_face")
    if not folder.exists() and (found := from_hub(str(source))) is not None:
        folder = found
    if (folder / MODULES).is_file():
        return StartingPoint(str(source), folder, "sentence_transformers")
    check_model_folder(folder)
    return StartingPoint(str(source), folder, "hugging_face")


def from_hub(source: str) -> Path | None:
    """The downloaded folder of a model on the Hugging Face Hub; None where `source` is no id. Raises `UserError`."""
    from conversion.source import HUB_ID, model_from_hub

    if HUB_ID.fullmatch(source) is None or Path(source).parent.is_dir():
        return None
    return model_from_hub(source)


def open_start(start: StartingPoint, pooling: PoolingName | None, device: str) -> SentenceTransformer:
    """The model in fp32 at its own full length: a sentence-transformers folder as it is, a plain one pooled, of unit length.

    Raises `UserError` for a `pooling` other than that of a sentence-transformers folder, and for one that cannot be loaded or
    holds static vectors.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    if start.kind == "hugging_face":
        return pooled(start.folder, pooling or "mean", None, device)
    try:
        with quiet_transformers():
            model = SentenceTransformer(
                str(start.folder),
                device=pick_device(device),
                local_files_only=True,
                model_kwargs={"dtype": torch.float32},
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{start.folder} is a sentence-transformers folder that cannot be loaded: {reason}") from None
    if not isinstance(model[0], Transformer):
        raise UserError(f"{start.folder} has no transformer, but {type(model[0]).__name__}: give a transformer model's folder")
    own = [module.pooling_mode for module in model if isinstance(module, Pooling)]
    if pooling is not None and own != [pooling]:
        raise UserError(
            f"--pooling {pooling}: {start.folder} is a sentence-transformers folder with pooling "
            f"{own[0] if own else 'none'} of its own: leave the flag out, or start from the plain model"
        )
    check_whole(model[0].auto_model)
    return model


def pooled(folder: Path, pooling: PoolingName, max_seq_length: int | None, device: str) -> SentenceTransformer:
    """A Hugging Face folder as a sentence-transformers model: encoder, pooling, unit length. fp32."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    with quiet_transformers():
        encoder = Transformer(
            str(folder),
            max_seq_length=max_seq_length,
            model_kwargs={"dtype": torch.float32, "local_files_only": True},
            processor_kwargs={"local_files_only": True},
            config_kwargs={"local_files_only": True},
        )
        check_whole(encoder.auto_model)
        token_vectors = Pooling(encoder.get_embedding_dimension(), pooling_mode=pooling)
        return SentenceTransformer(modules=[encoder, token_vectors, Normalize()], device=pick_device(device))
