"""Model folders of either format: what decides their answers, and the one export of each Megatron checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.cache import Cache, source_sha256
from evaluation.run_folder import checkpoint_fingerprint
from mecellem.errors import UserError
from mecellem.files import sha256_of


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model folder whose files were checked. `positions`: tokens it sees at most; `vocabulary`: rows of its embedding."""

    folder: Path
    kind: Literal["megatron", "hugging_face"]
    tokenizer: Path
    vocabulary: int
    positions: int

    @property
    def digest(self) -> str:
        """Changes with weights, shape or tokenizer."""
        if self.kind == "megatron":
            return checkpoint_fingerprint(self.folder)
        from conversion.safetensors_folder import SafetensorsReader

        digest = hashlib.sha256()
        weights = sorted(set(SafetensorsReader(self.folder).files.values()))
        for path in (self.folder / "config.json", self.tokenizer / "tokenizer.json", *weights):
            digest.update(f"{path.name}:{sha256_of(path)}\n".encode())
        return digest.hexdigest()


def hugging_face_folder(model: ModelFiles, store: Cache) -> Path:
    """The folder that transformers loads: the model's own, or that of a Megatron checkpoint's export."""
    return model.folder if model.kind == "hugging_face" else exported(model.folder, store)


def exported(checkpoint: Path, store: Cache) -> Path:
    """The Hugging Face folder of a Megatron checkpoint, exported (and verified) into the cache once.

    Raises `UserError` for a damaged checkpoint and as the export does.
    """
    parts = [checkpoint_fingerprint(checkpoint), source_sha256("conversion", "megatron_recipes")]

    def make(folder: Path) -> None:  # what is cached needs neither torch nor Megatron-Core
        from conversion.export import export_checkpoint
        from megatron_recipes.engine.checkpoint import damage

        fault = damage(checkpoint)
        if fault is not None:
            raise UserError(f"{checkpoint} cannot be loaded, the checkpoint is damaged: {fault}; use another one")
        export_checkpoint(checkpoint, folder)

    return store.make_folder("export", parts, make)
