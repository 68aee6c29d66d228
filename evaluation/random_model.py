"""The same architecture and tokenizer with fresh random weights: what a figure is worth without any training.

Mean-pooled random weights are far from blind: they hash words into vectors, so their retrieval is word overlap.
"""

from __future__ import annotations

from pathlib import Path

from mecellem.files import atomic_folder
from mecellem.tokenizer_files import copy_tokenizer
from post_training.model_folder import check_model_folder, quiet_transformers


def write_random_model(folder: Path, target: Path, seed: int = 0) -> None:
    """Write to `target` a model with the config and tokenizer of `folder` and weights drawn from `seed`.

    The weights are those that transformers itself starts training from. Raises `UserError` for a bad model folder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    check_model_folder(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with atomic_folder(target) as temporary, torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        AutoModelForMaskedLM.from_config(config, dtype=torch.float32).save_pretrained(temporary)
        copy_tokenizer(folder, temporary)
