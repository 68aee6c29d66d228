"""The same short contrastive training for any masked language model, with sentence-transformers.

It answers "what is this checkpoint worth as a retriever once trained for it", so it is one fixed recipe: mean pooling,
unit length, two crops of a document as a positive pair, the other documents of the batch as negatives.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mecellem.console import progress_bar
from mecellem.errors import UserError
from mecellem.files import atomic_folder
from mecellem.tokenizer_files import read_json
from post_training.model_folder import check_model_folder, load_tokenizer, pick_device, quiet_transformers
from preprocessing.corpus.document import Document

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# What a training leaves beside its model: settings, losses, pairs, seconds.
TRAINING_RECORD = "post_training.json"


@dataclass(frozen=True, slots=True)
class ContrastiveSettings:
    """The recipe. The paper's own numbers for this step are unpublished; each value names where it comes from."""

    steps: int = 60
    """optimiser steps; what about 15 s on two cores allow for a model of 6 layers x 256"""
    batch_size: int = 64
    """pairs in a batch, so batch_size - 1 negatives each; set by the same budget (scale: as many as fit in memory)"""
    train_seq_length: int = 16
    """tokens per crop; the same budget buys more pairs this way than at 32 or 64, and scored higher on the validation
    split (scale: the model's own length, since short post-training is reported to hurt legal retrieval)"""
    lr: float = 5e-4
    """peak learning rate, AdamW; ahead of 1e-3 on the validation split at this shape, where higher rates were not tried
    (a base model: 2e-5 to 5e-5)"""
    warmup_share: float = 0.1
    """share of the steps with rising rate, then linear decay to 0 (sentence-transformers' examples)"""
    temperature: float = 0.05
    """divides the cosines (SimCSE, Gao et al. 2021; it is also the default scale of 20 in sentence-transformers)"""
    window_words: int = 64
    """both crops come from one window of this many words (Contriever: 256 tokens, for longer crops)"""
    crop_min_words: int = 3
    """shortest crop in words, about a title's length (Contriever: 5% of the window)"""
    crop_largest_share: float = 0.2
    """longest crop as a share of the window, so that a crop fits in train_seq_length (Contriever: 0.5)"""
    post_seed: int = 0
    """decides pairs, their order and dropout"""

    def __post_init__(self) -> None:
        """Refuse values that would train nothing or never end."""
        for name in ("steps", "batch_size", "train_seq_length", "window_words", "crop_min_words"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")
        if self.batch_size < 2:
            raise UserError("--batch-size must be at least 2: the other pairs of the batch are the negatives")
        if not (self.lr > 0 and self.temperature > 0):
            raise UserError("--lr and --temperature must be above 0")
        if not (0 <= self.warmup_share <= 1 and 0 < self.crop_largest_share <= 1):
            raise UserError("--warmup-share and --crop-largest-share are shares: between 0 and 1")


@dataclass(frozen=True, slots=True)
class ContrastiveResult:
    """What the training did: loss at every step, pairs seen, wall time in seconds."""

    losses: tuple[float, ...]
    pairs: int
    seconds: float


def mean_pooled(folder: Path, max_seq_length: int, device: str = "auto") -> SentenceTransformer:
    """A Hugging Face folder as a sentence-transformers model: encoder, mean over real tokens, unit length. fp32."""
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
        pooling = Pooling(encoder.get_embedding_dimension(), pooling_mode="mean")
        model = SentenceTransformer(modules=[encoder, pooling, Normalize()], device=pick_device(device))
    return model


@contextmanager
def _progress_callback(title: str, steps: int) -> Iterator[Any]:
    """A trainer callback that moves one of our progress bars."""
    from transformers import TrainerCallback

    with progress_bar(transient=True) as bar:
        task = bar.add_task(title, total=steps)

        class Advance(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                bar.advance(task)

        yield Advance()


def _train(model: SentenceTransformer, pairs: list[tuple[str, str]], settings: ContrastiveSettings, title: str) -> list[float]:
    """Train in place; returns the loss of every step."""
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from torch.utils.data import SequentialSampler
    from transformers.trainer_callback import PrinterCallback

    class Trainer(SentenceTransformerTrainer):
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """Nothing: the card is ours, and the library's callback would ask a model hub about the data."""

    def in_order(dataset: Dataset, **keywords: Any) -> DefaultBatchSampler:
        """The pairs come in training order already: batches hold different documents."""
        return DefaultBatchSampler(SequentialSampler(dataset), **keywords)

    disable_progress_bar()
    dataset = Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [b for _, b in pairs]})
    with TemporaryDirectory() as scratch, _progress_callback(title, settings.steps) as advance, quiet_transformers():
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.lr,
            warmup_steps=settings.warmup_share,
            lr_scheduler_type="linear",
            max_grad_norm=1.0,
            seed=settings.post_seed,
            data_seed=settings.post_seed,
            batch_sampler=in_order,
            use_cpu=model.device.type == "cpu",
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
        )
        loss = MultipleNegativesRankingLoss(model, scale=1 / settings.temperature)
        trainer = Trainer(model=model, args=arguments, train_dataset=dataset, loss=loss, callbacks=[advance])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def _model_card(source: Path, settings: ContrastiveSettings, result: ContrastiveResult) -> str:
    made_with = ", ".join(f"{name} {version(name)}" for name in ("sentence-transformers", "transformers", "torch"))
    values = "\n".join(f"| {name} | {value} |" for name, value in asdict(settings).items())
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
language: tr
---
# {source.name}, contrastively trained

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("path/of/this/folder").encode(["Türkiye Büyük Millet Meclisi"])  # unit length
```

Mean pooling and unit length. Trained by Mecellem on {result.pairs:,} pairs of crops of one document, with in-batch
negatives; the loss went from {result.losses[0]:.3f} to {result.losses[-1]:.3f}. No labelled data was used.

| setting | value |
| --- | --- |
{values}

Made with {made_with}.
"""


def train_contrastive(
    folder: Path,
    target: Path,
    documents: Sequence[Document],
    settings: ContrastiveSettings | None = None,
    *,
    device: str = "auto",
    title: str = "contrastive training",
) -> ContrastiveResult:
    """Train the model of `folder` on crops of `documents` (the train split); write it to `target`.

    `target` is a sentence-transformers folder that appears whole or not at all and loads without
    this package. Same inputs, same machine: same weights.
    Raises `UserError` for a bad model folder, too few documents, a taken `target` or a full disk.
    """
    import numpy as np
    import torch

    from post_training.crops import crop_pairs

    settings = settings or ContrastiveSettings()
    check_model_folder(folder)
    started = time.perf_counter()
    pairs = crop_pairs(
        documents,
        batches=settings.steps,
        batch_size=settings.batch_size,
        window_words=settings.window_words,
        crop_min_words=settings.crop_min_words,
        crop_largest_share=settings.crop_largest_share,
        seed=settings.post_seed,
    )
    with atomic_folder(target) as temporary:
        random.seed(settings.post_seed)
        np.random.seed(settings.post_seed)
        torch.manual_seed(settings.post_seed)
        model = mean_pooled(folder, settings.train_seq_length, device)
        losses = _train(model, pairs, settings, title)
        assert len(losses) == settings.steps, (len(losses), settings.steps)
        # The model was trained on short crops, but nothing in it is limited to them: the saved folder takes what the
        # tokenizer takes.
        positions = int(read_json(folder / "config.json")["max_position_embeddings"])
        model.max_seq_length = min(load_tokenizer(folder).model_max_length, positions)
        with quiet_transformers():
            model.save(str(temporary), create_model_card=False)
        result = ContrastiveResult(tuple(losses), len(pairs), time.perf_counter() - started)
        (temporary / "README.md").write_text(_model_card(folder, settings, result), encoding="utf-8")
        record = {"settings": asdict(settings), "result": asdict(result)}
        (temporary / TRAINING_RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return result
