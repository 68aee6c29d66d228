"""Model folders of either format: what decides their answers, and where transformers loads them from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.cache import Cache
from mecellem.files import sha256_of
from post_training.exports import checkpoint_fingerprint, exported


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
    return model.folder if model.kind == "hugging_face" else exported(model.folder, store.folder)
