"""The distillation itself, and `mecellem distill train`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.console import console, step
from mecellem.files import atomic_folder, disk_full_is_user_error
from mecellem.flags import parse_and_call
from post_training.distillation.data import Batches, Collator, make_batches
from post_training.distillation.origin import refuse_another_teacher
from post_training.distillation.record import RECORD, Outcome, write_notes
from post_training.distillation.settings import DistillationSettings
from post_training.distillation.store import VectorStore, open_store
from post_training.distillation.student import Student, open_student, save_student
from post_training.model_folder import PoolingName, pick_device, quiet_transformers
from post_training.start import StartingPoint, find_start
from post_training.training.record import versions
from post_training.training.run import (
    check_place,
    deterministic,
    join_launcher,
    make_arguments,
    run_to_end,
    seed_everything,
    signals,
    unfinished_kept,
)
from post_training.training.unfinished import Unfinished, facts_of

if TYPE_CHECKING:
    from rich.console import Console
    from sentence_transformers import SentenceTransformerTrainingArguments

    from post_training.distillation.trainer import DistillationTrainer, DistillationWatch

LOOKS = 10  # at the held-out texts, where --evaluate-every is not given
HELD_OUT_BATCH = 32  # texts at a time in those looks: sentence-transformers' own default
DEFAULT = DistillationSettings()


@dataclass(frozen=True, slots=True)
class Job:
    """One training that is ready to begin. `part`: texts that a rank takes at a time."""

    settings: DistillationSettings
    compute: str
    store: VectorStore
    student: Student
    batches: Batches
    evaluate_every: int
    checkpoint_every: int
    workers: int
    ranks: int
    part: int
    device: str

    @property
    def parts(self) -> int:
        """Of a rank's share of a batch."""
        return self.settings.batch_size // self.ranks // self.part

    @property
    def metric(self) -> str:
        """The held-out score that chooses."""
        return "relation" if self.settings.loss == "relational" else "cosine"


def train_distillation(
    source: str | Path,
    vectors: Path,
    target: Path,
    settings: DistillationSettings = DEFAULT,
    *,
    pooling: PoolingName | None = None,
    another_teacher: bool = False,
    evaluate_every: int = 0,
    checkpoint_every: int = 100,
    workers: int = 0,
    cache: Path | None = None,
    device: str = "auto",
) -> Path:
    """Train the model of `source` to give the vectors in `vectors`; write a sentence-transformers folder to `target`.

    `pooling`: of a plain Hugging Face folder. `another_teacher`: the student may be the clone of another model than the one
    whose vectors these are. What comes after it leaves the weights as they are, but for which step is kept.
    Checkpoints lie in `TARGET.unfinished/` every `checkpoint_every` steps (0: only on a signal); the same call goes on from
    there, to the same result. After SIGTERM, SIGINT or SIGUSR1 `SystemExit` (128 + its number) is raised. `target` appears
    whole or not at all. Raises `UserError` for bad input, before any work, and for a full disk.
    """
    ranks = join_launcher()
    check_place(target, device, evaluate_every=evaluate_every, checkpoint_every=checkpoint_every, workers=workers)
    device = pick_device(device).partition(":")[0]
    part = settings.part_size(ranks, device)
    store = open_store(vectors)
    if os.environ.get("RANK", "0") == "0":
        store.check()
    start = find_start(source, cache or target.parent / "exports")
    if not another_teacher:
        refuse_another_teacher(start, store)
    compute = settings.compute if settings.compute != "auto" else ("bf16" if device == "cuda" else "fp32")
    unfinished = Unfinished(target)
    identity = make_identity(start, store, settings, pooling, compute, evaluate_every)
    resume = unfinished.open(identity)
    seed_everything(settings.seed)
    # of several ranks, the trainer knows whose GPU is which
    student = open_student(start, store, settings, pooling, "cpu" if ranks > 1 else device)
    batches = make_batches(store, student, settings)
    evaluate_every = evaluate_every or math.ceil(len(batches.plan) / LOOKS)
    job = Job(settings, compute, store, student, batches, evaluate_every, checkpoint_every, workers, ranks, part, device)
    with disk_full_is_user_error(target), deterministic(device), unfinished_kept(unfinished):
        outcome = run(job, unfinished, identity, resume)
        if outcome.main:
            with atomic_folder(target) as temporary, quiet_transformers():
                save_student(student, temporary)
                write_notes(temporary, outcome, start, store, student, batches, settings)
            unfinished.remove()
    return target


def make_identity(
    start: StartingPoint,
    store: VectorStore,
    settings: DistillationSettings,
    pooling: PoolingName | None,
    compute: str,
    evaluate_every: int,
) -> dict[str, Any]:
    """What makes two trainings one, in the words of a refusal."""
    values = asdict(settings) | {"compute": compute, "pooling": pooling, "evaluate_every": evaluate_every}
    return {
        "student": start.sha256,
        "vectors": store.sha256,
        **{f"--{name.replace('_', '-')}": value for name, value in values.items()},
        "versions": versions(),
    }


def arguments_of(job: Job, folder: Path, resume: Path | None) -> SentenceTransformerTrainingArguments:
    """What the library's trainer is told."""
    settings, steps = job.settings, len(job.batches.plan)
    looks = bool(len(job.batches.held_out))
    return make_arguments(
        folder,
        settings.seed,
        job.device,
        job.ranks,
        job.workers,
        max_steps=steps,
        per_device_train_batch_size=job.part,
        gradient_accumulation_steps=job.parts,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        warmup_steps=math.ceil(settings.warmup_share * steps),
        lr_scheduler_type="cosine",
        max_grad_norm=settings.clip,
        bf16=job.compute == "bf16",
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        ddp_find_unused_parameters=True,  # models like BERT have weights that pooling never uses
        eval_strategy="steps" if looks else "no",
        eval_steps=job.evaluate_every,
        eval_on_start=looks and resume is None,
    )


def make_trainer(job: Job, arguments: SentenceTransformerTrainingArguments, watch: DistillationWatch) -> DistillationTrainer:
    """The trainer with loss, data, held-out texts and the watch."""
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from transformers.trainer_callback import PrinterCallback

    from post_training.distillation.losses import DistillationLoss
    from post_training.distillation.trainer import DistillationTrainer, HeldOut

    disable_progress_bar()
    model, rows = job.student.part, job.batches.held_out.tolist()
    held_out = HeldOut(job.store.texts(rows), job.store.vectors(rows), job.student.prompt, HELD_OUT_BATCH) if rows else None
    with quiet_transformers():
        trainer = DistillationTrainer(
            embedding_lr=job.settings.embedding_lr,
            plan=job.batches.plan,
            ranks=job.ranks * job.parts,
            model=model,
            args=arguments,
            train_dataset=Dataset(pa.table({"row": np.arange(len(job.store))})),
            evaluator=held_out,
            data_collator=Collator(job.store, model, job.student.prompt),
            loss=DistillationLoss(model, job.settings.loss, job.ranks),
            callbacks=[watch],
        )
    trainer.remove_callback(PrinterCallback)
    watch.trainer = trainer
    return trainer


def run(job: Job, unfinished: Unfinished, identity: dict[str, Any], resume: Path | None) -> Outcome:
    """Train the student in place, from `resume` on if that is given, and leave it with the best weights.

    Raises `SystemExit` when a signal stopped it.
    """
    from post_training.distillation.trainer import DistillationWatch, metric_lines

    with signals() as stop:
        watch = DistillationWatch(
            "distillation",
            unfinished,
            job.checkpoint_every,
            stop,
            facts_of(resume),
            student=job.student,
            metric=job.metric,
            patience=job.settings.patience,
        )
        arguments = arguments_of(job, unfinished.folder, resume)
        state = arguments.distributed_state
        assert state is not None
        if state.is_main_process:
            unfinished.begin(identity, resume)
            watch.restore(resume)
        trainer = make_trainer(job, arguments, watch)
        state.wait_for_everyone()
        run_to_end(trainer, watch, resume)
    if state.is_main_process and watch.best is not None:
        watch.load_best()
    return Outcome(
        main=state.is_main_process,
        lines=tuple(metric_lines(trainer.state.log_history)),
        best=watch.best,
        metric=job.metric,
        stopped_early=watch.stopped_early,
        compute=job.compute,
        part=job.part,
        seconds=watch.seconds(),
        tokens=watch.tokens,
        padding=1 - watch.tokens / max(1, watch.slots),
        ranks=job.ranks,
        device=str(job.student.part.device),
    )


def train(
    student: str,
    vectors: Path,
    out: Path,
    pooling: PoolingName | None = None,
    another_teacher: bool = False,
    evaluate_every: int = 0,
    checkpoint_every: int = 100,
    workers: int = 0,
    cache: Path | None = None,
    device: str = "auto",
    settings: DistillationSettings = DEFAULT,
) -> None:
    """Train a student to give the vectors that `mecellem distill vectors` stored.

    What the student gives before or after its Dense modules is compared, as the vectors are of the teacher's. OUT is a
    sentence-transformers folder with all modules that loads without this package: the weights that were nearest to the
    teacher's on held-out texts. A stopped training (SIGTERM, kill, power cut) goes on where it was when the same command is
    given again. Several GPUs or processes: `torchrun --nproc-per-node 4 -m mecellem distill train ...`; the batch is the same
    one, shared by the ranks.

    Args:
        student: a sentence-transformers folder (of `mecellem convert clone`, say), a plain Hugging Face folder with --pooling,
            or a hub id
        vectors: the folder that `mecellem distill vectors` wrote
        out: the folder to write
        pooling: of a plain Hugging Face folder: mean, cls or lasttoken
        another_teacher: train a clone with vectors of another model than it was cloned from, which is refused otherwise
        evaluate_every: steps between two looks at the held-out texts; 0: ten looks
        checkpoint_every: steps between two checkpoints; 0: only on a signal
        workers: processes that tokenize beside the training; 0: the training itself
        cache: where Megatron checkpoints are exported to; OUT/../exports unless given
        device: auto, cpu or cuda
        settings: the recipe
    """

    def work() -> None:
        train_distillation(
            student,
            vectors,
            out,
            settings,
            pooling=pooling,
            another_teacher=another_teacher,
            evaluate_every=evaluate_every,
            checkpoint_every=checkpoint_every,
            workers=workers,
            cache=cache,
            device=device,
        )

    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) > 0:
        work()
        return
    with step("distillation", reads=[student, vectors], writes=[out]) as screen:
        work()
        summarise(screen, out)


def summarise(screen: Console, out: Path) -> None:
    """What the training did, from its record."""
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    data, result, speed, student = record["data"], record["result"], record["speed"], record["student"]
    early = ", stopped early" if result["stopped_early"] else ""
    screen.print(
        f"texts   {data['train']:,} to train on, {data['held_out']:,} held out; {data['truncated']:,} are longer than "
        f"{student['max_length']:,} tokens and lost {data['tokens_cut']:,}\n"
        f"student {student['trained_parameters']:,} of {student['parameters']:,} parameters trained\n"
        f"loss    {result['first_loss']:.4f} to {result['last_loss']:.4f} in {result['steps']:,} steps{early}\n"
        f"kept    step {result['kept_step']:,}, chosen by {result['chosen_by']}\n"
        f"speed   {speed['texts_per_second']:,.1f} texts/s, {speed['tokens_per_second']:,.0f} tokens/s, "
        f"{speed['padding_share']:.0%} of the batches padding",
        markup=False,
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem distill train`."""
    try:
        parse_and_call(train, argv, prog="mecellem distill train")
    except SystemExit as stopped:
        if isinstance(stopped.code, int) and stopped.code > 128:
            console().print("stopped and saved: the same command goes on from here", markup=False)
        raise
    return 0
