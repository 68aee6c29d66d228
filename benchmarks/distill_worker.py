"""One training of one contender of `distill.py`, in a process of its own: prints seconds (of CPU time, of the clock).

    python distill_worker.py CONTENDER FOLDER

FOLDER holds settings.json, texts.json and vectors.npy (and vectors/, what `mecellem distill vectors` made of the same).
distil-trainer runs in an environment of its own, so nothing of this repository is imported unless it is ours.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

PART = 32  # texts at a time
Times = tuple[float, float]


def now() -> Times:
    """CPU time of all threads, and the clock."""
    return time.process_time(), time.perf_counter()


class Stamps:
    """When the training began, with models loaded and texts in memory, and the last optimiser step ended."""

    def __init__(self) -> None:
        self.begun: Times = now()
        self.ended: Times = self.begun
        self.steps = 0
        step = torch.optim.AdamW.step

        def stamped(optimizer: Any, *arguments: Any, **keywords: Any) -> Any:
            found = step(optimizer, *arguments, **keywords)
            self.ended, self.steps = now(), self.steps + 1
            return found

        torch.optim.AdamW.step = stamped  # type: ignore[method-assign, assignment]

    def begin(self) -> None:
        """Now it starts: models are loaded, texts are in memory."""
        self.begun = now()


def distil_trainer(folder: Path, settings: dict[str, Any], stamps: Stamps) -> None:
    """The paper's own trainer."""
    from datasets import Dataset
    from distil_trainer.core.embedding_trainer import EmbeddingDistillationTrainer, EmbeddingTrainerConfig

    data = Dataset.from_dict({"text": texts_of(folder), "teacher_embedding_final": np.load(folder / "vectors.npy")})
    config = EmbeddingTrainerConfig(
        student_model=settings["student"],
        learning_rate=settings["lr"],
        num_epochs=1,
        batch_size=settings["batch_size"],
        warmup_ratio=0.01,
        loss_type="cosine",
        output_dir=str(folder / "distil-trainer"),
        device="cpu",
    )
    trainer = EmbeddingDistillationTrainer(config)
    trainer.student_model.max_seq_length = settings["max_length"]
    stamps.begin()
    trainer.train(data)


def plain(folder: Path, settings: dict[str, Any], stamps: Stamps) -> None:
    """sentence-transformers' trainer with its MSELoss, as its documentation has it, or in parts of a batch."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MSELoss
    from transformers import TrainerCallback

    class Begin(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            stamps.begin()

    part = PART if settings["variant"] == "parts" else settings["batch_size"]
    model = SentenceTransformer(settings["student"], device="cpu")
    model.max_seq_length = settings["max_length"]
    data = Dataset.from_dict({"sentence": texts_of(folder), "label": np.load(folder / "vectors.npy")})
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "plain"),
        num_train_epochs=1,
        per_device_train_batch_size=part,
        gradient_accumulation_steps=settings["batch_size"] // part,
        learning_rate=settings["lr"],
        warmup_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=data, loss=MSELoss(model), callbacks=[Begin()]
    ).train()


def ours(folder: Path, settings: dict[str, Any], stamps: Stamps) -> None:
    """`mecellem distill train` with the student's own dropout, as the other two have it, and the loss of each in turn.

    It counts all texts' tokens to plan its batches, which the others do not: that is part of its time.
    """
    import post_training.distillation.train as training
    from post_training.distillation.settings import DistillationSettings

    plan = training.make_batches

    def begin_and_plan(*arguments: Any) -> Any:
        stamps.begin()
        return plan(*arguments)

    training.make_batches = begin_and_plan  # type: ignore[assignment]
    recipe = DistillationSettings(
        batch_size=settings["batch_size"],
        max_length=settings["max_length"],
        lr=settings["lr"],
        loss=settings["variant"],
        held_out=0,
        dropout=None,
    )
    training.train_distillation(
        settings["student"], folder / "vectors", folder / "ours", recipe, checkpoint_every=0, device="cpu"
    )


def texts_of(folder: Path) -> list[str]:
    """In the order of the vectors."""
    found: list[str] = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    return found


def main(contender: str, folder: Path) -> None:
    """Train and print."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    stamps = Stamps()
    {"distil-trainer": distil_trainer, "plain": plain, "ours": ours}[contender](folder, settings, stamps)
    cpu, clock = (end - begin for end, begin in zip(stamps.ended, stamps.begun, strict=True))
    print(json.dumps({"cpu": cpu, "clock": clock, "steps": stamps.steps}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
