"""The library's trainer for one training: its arguments, data, loss, curves and what it is measured on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from post_training.contrastive.settings import ContrastiveSettings
from post_training.model_folder import quiet_transformers
from post_training.pairs import PairSet
from post_training.training.run import make_arguments
from post_training.training.unfinished import step_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

    from post_training.batches import Rows
    from post_training.contrastive.model import Shape
    from post_training.training.trainer import PlannedTrainer, Watch

RECALL_DEPTH = 10


@dataclass(frozen=True, slots=True)
class Job:
    """One training that is ready to begin."""

    settings: ContrastiveSettings
    shape: Shape
    pairs: PairSet
    plan: Rows
    validation: PairSet | None
    evaluate_every: int
    checkpoint_every: int
    tensorboard: Path | None
    workers: int
    ranks: int
    device: str
    title: str


def arguments_of(job: Job, folder: Path, resume: Path | None) -> SentenceTransformerTrainingArguments:
    """What the library's trainer is told."""
    settings, share = job.settings, job.settings.batch_size // job.ranks
    columns = {name for pairs in (job.pairs, job.validation) if pairs is not None for name in pairs.table.column_names}
    return make_arguments(
        folder,
        settings.post_seed,
        job.device,
        job.ranks,
        job.workers,
        max_steps=len(job.plan),
        per_device_train_batch_size=share,
        per_device_eval_batch_size=share,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        warmup_steps=math.ceil(settings.warmup_share * len(job.plan)),
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        bf16=settings.bf16,
        prompts=job.shape.prompts(columns),
        router_mapping=job.shape.routes(columns),
        eval_strategy="no" if job.validation is None else "steps",
        eval_steps=job.evaluate_every or len(job.plan),
        eval_on_start=job.validation is not None and resume is None,
    )


def make_trainer(
    job: Job,
    model: SentenceTransformer,
    guide: SentenceTransformer | None,
    arguments: SentenceTransformerTrainingArguments,
    watch: Watch,
    resume: Path | None,
) -> PlannedTrainer:
    """The trainer with loss, data, curves and the `Watch`."""
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from transformers.integrations import TensorBoardCallback
    from transformers.trainer_callback import PrinterCallback

    from post_training.contrastive.losses import make_loss
    from post_training.training.trainer import PlannedTrainer

    disable_progress_bar()
    callbacks: list[Any] = [watch]
    if job.tensorboard is not None and arguments.process_index == 0:
        from torch.utils.tensorboard import SummaryWriter

        done = 0 if resume is None else step_of(resume)
        callbacks.append(TensorBoardCallback(SummaryWriter(str(job.tensorboard), purge_step=done + 1)))
    with quiet_transformers():
        trainer = PlannedTrainer(
            plan=job.plan,
            ranks=job.ranks,
            model=model,
            args=arguments,
            train_dataset=Dataset(job.pairs.table),
            eval_dataset=Dataset(job.validation.table) if job.validation else None,
            evaluator=make_evaluator(job.validation, job.settings) if job.validation else None,
            loss=make_loss(model, guide, job.settings, job.ranks),
            callbacks=callbacks,
        )
    trainer.remove_callback(PrinterCallback)
    watch.trainer = trainer
    return trainer


def make_evaluator(validation: PairSet, settings: ContrastiveSettings) -> Any:
    """Retrieval among the held-out pairs' own positives and negatives."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    columns = [column.to_pylist() for column in validation.table.columns]
    texts = {text: str(number) for number, text in enumerate(dict.fromkeys(text for column in columns[1:] for text in column))}
    queries = {text: str(number) for number, text in enumerate(dict.fromkeys(columns[0]))}
    relevant: dict[str, set[str]] = {}
    for anchor, positive in zip(columns[0], columns[1], strict=True):
        relevant.setdefault(queries[anchor], set()).add(texts[positive])
    depth = [RECALL_DEPTH]
    return InformationRetrievalEvaluator(
        queries={number: text for text, number in queries.items()},
        corpus={number: text for text, number in texts.items()},
        relevant_docs=relevant,
        mrr_at_k=depth,
        ndcg_at_k=depth,
        accuracy_at_k=depth,
        precision_recall_at_k=depth,
        map_at_k=depth,
        batch_size=settings.batch_size,
        main_score_function="cosine",
        write_csv=False,
    )


def scores_of(entry: dict[str, Any]) -> dict[str, float]:
    """Step, loss and retrieval of one look at the held-out pairs, from a line of the trainer's history."""
    names = {"loss": "eval_loss"} | {name: f"eval_cosine_{name}@{RECALL_DEPTH}" for name in ("recall", "ndcg", "mrr")}
    return {"step": entry["step"]} | {
        (name if name == "loss" else f"{name}_{RECALL_DEPTH}"): float(entry[key]) for name, key in names.items()
    }
