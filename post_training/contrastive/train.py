"""The contrastive training itself: one function for the short training of every checkpoint and for a full one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from mecellem.files import atomic_folder, disk_full_is_user_error
from post_training.contrastive.record import Outcome, write_notes
from post_training.contrastive.settings import ContrastiveSettings
from post_training.contrastive.setup import Job, arguments_of, make_trainer, scores_of
from post_training.model_folder import pick_device, quiet_transformers
from post_training.pairs import PairSet, pair_set
from post_training.start import StartingPoint, find_start, open_start
from post_training.training.record import versions
from post_training.training.run import (
    check_place,
    deterministic,
    join_launcher,
    run_to_end,
    seed_everything,
    signals,
    unfinished_kept,
)
from post_training.training.unfinished import Unfinished, facts_of
from preprocessing.corpus.document import Document

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from post_training.batches import Rows

RATIO_SAMPLE = 1000  # pairs whose tokens are counted, for characters a token


@dataclass(frozen=True, slots=True)
class ContrastiveResult:
    """What the training did: loss at every step, pairs seen, wall time in seconds."""

    losses: tuple[float, ...]
    pairs: int
    seconds: float


def train_contrastive(
    source: str | Path,
    target: Path,
    data: PairSet | Sequence[Document],
    settings: ContrastiveSettings | None = None,
    *,
    guide: str | Path | None = None,
    validation: PairSet | None = None,
    evaluate_every: int = 0,
    checkpoint_every: int = 500,
    tensorboard: Path | None = None,
    workers: int = 0,
    cache: Path | None = None,
    device: str = "auto",
    title: str = "contrastive training",
) -> ContrastiveResult:
    """Train the model of `source` on pairs, or on crops of documents; write a sentence-transformers folder to `target`.

    `source`, `guide`: a Hugging Face or sentence-transformers folder, a Megatron checkpoint (exported into `cache`, by
    default beside `target`) or a hub id. Everything after `settings` but `guide` leaves the weights as they are:
    `validation` is scored every `evaluate_every` steps (0: before and after), `tensorboard` gets the curves, `workers`
    processes tokenize. Same inputs, machine and threads: same weights.

    Every `checkpoint_every` steps (0: never), and on SIGTERM, SIGINT or SIGUSR1, the training is saved in
    `TARGET.unfinished/`; the same call goes on from there, to the same result, and removes it at the end. After a signal
    `SystemExit` (128 + its number) is raised. `target` appears whole or not at all.

    Raises `UserError` for bad input, before any work, for a loss that stops being a number, and for a full disk.
    """
    from post_training.contrastive.model import lengthen, prepare

    settings = settings or ContrastiveSettings()
    ranks = join_launcher()
    check_place(target, device, evaluate_every=evaluate_every, checkpoint_every=checkpoint_every, workers=workers)
    check(settings, data, guide, validation, ranks)
    cache = cache or target.parent / "exports"
    start = find_start(source, cache)
    guided_by = find_start(guide, cache) if guide is not None else None
    pairs, plan = make_pairs(data, settings)
    unfinished = Unfinished(target)
    identity = make_identity(start, guided_by, pairs, settings)
    resume = unfinished.open(identity)
    seed_everything(settings.post_seed)
    device = pick_device(device).partition(":")[0]
    where = "cpu" if ranks > 1 else device  # of several ranks, the trainer knows whose GPU is which
    model = open_start(start, settings.pooling, where)
    shape = prepare(model, settings)
    planned = plan if plan is not None else plan_pairs(model, pairs, settings)
    guiding = open_start(guided_by, None, where) if guided_by else None
    job = Job(
        settings,
        shape,
        pairs,
        planned,
        validation,
        evaluate_every,
        checkpoint_every,
        tensorboard,
        workers,
        ranks,
        device,
        title,
    )
    with disk_full_is_user_error(target), deterministic(device), unfinished_kept(unfinished):
        outcome = run(job, model, guiding, unfinished, identity, resume)
        if outcome.main:
            with atomic_folder(target) as temporary, quiet_transformers():
                lengthen(model, settings, shape)
                model.save(str(temporary), create_model_card=False)
                write_notes(temporary, outcome, start, guided_by, pairs, shape, settings)
            unfinished.remove()
    return ContrastiveResult(outcome.losses, planned.size, outcome.seconds)


def check(
    settings: ContrastiveSettings, data: PairSet | Sequence[Document], guide: object, validation: PairSet | None, ranks: int
) -> None:
    """Refuse what cannot work before anything is loaded. Raises `UserError`."""
    settings.check_source(crops=not isinstance(data, PairSet))
    settings.check_guide(guide)
    for pairs in (data, validation):
        if isinstance(pairs, PairSet):
            settings.check_negatives(pairs.negatives)
    if settings.batch_size % ranks:
        raise UserError(f"--batch-size {settings.batch_size} is shared by {ranks} ranks: give a multiple of {ranks}")
    if validation is not None and isinstance(data, PairSet):
        check_held_out(data, validation)


def check_held_out(data: PairSet, validation: PairSet) -> None:
    """Refuse held-out pairs that are trained on: what is measured on them would flatter. Raises `UserError`."""
    trained = set(data.pairs())
    both = sum(pair in trained for pair in validation.pairs())
    if both == len(validation):
        raise UserError(f"{validation.origins[0]} is trained on, so it is no validation data: give pairs that were held out")
    if both:
        raise UserError(
            f"{both:,} of {len(validation):,} validation pairs ({', '.join(validation.origins)}) are trained on too: remove "
            "them from one of the two, or give others"
        )


def make_pairs(data: PairSet | Sequence[Document], settings: ContrastiveSettings) -> tuple[PairSet, Rows | None]:
    """The pairs, and for crops their batches: those come in training order, each batch from different documents."""
    if isinstance(data, PairSet):
        return data, None
    import numpy as np

    from post_training.crops import crop_pairs

    assert settings.steps is not None
    crops = crop_pairs(
        data,
        batches=settings.steps,
        batch_size=settings.batch_size,
        window_words=settings.window_words,
        crop_min_words=settings.crop_min_words,
        crop_largest_share=settings.crop_largest_share,
        seed=settings.post_seed,
    )
    plan = np.arange(len(crops), dtype=np.int64).reshape(settings.steps, settings.batch_size)
    return pair_set(crops, "crops of documents"), plan


def plan_pairs(model: SentenceTransformer, pairs: PairSet, settings: ContrastiveSettings) -> Rows:
    """Batches of given pairs, by the tokens that their texts will have, as far as their characters tell."""
    from post_training.batches import plan_batches

    lengths = token_estimate(model, pairs, settings.train_seq_length)
    return plan_batches(
        pairs.text_numbers(),
        lengths,
        batch_size=settings.batch_size,
        steps=settings.steps,
        epochs=settings.epochs,
        group_by_length=settings.group_by_length,
        seed=settings.post_seed,
    )


def token_estimate(model: SentenceTransformer, pairs: PairSet, limit: int) -> NDArray[np.float64]:
    """[rows]: about how many tokens the texts of a row have once they are cut, by the characters a token of the first rows."""
    import numpy as np

    characters = pairs.characters()
    sample = [text for name in pairs.table.column_names for text in pairs.table.column(name)[:RATIO_SAMPLE].to_pylist()]
    with quiet_transformers():  # texts longer than the model takes are meant
        tokens = sum(len(ids) for ids in model.tokenizer(sample, add_special_tokens=False, truncation=False)["input_ids"])
    ratio = sum(map(len, sample)) / max(1, tokens)
    estimate: NDArray[np.float64] = np.minimum(characters / ratio, limit).sum(axis=1)
    return estimate


def make_identity(
    start: StartingPoint, guide: StartingPoint | None, pairs: PairSet, settings: ContrastiveSettings
) -> dict[str, Any]:
    """What makes two trainings one, in the words of a refusal."""
    values = asdict(settings) | {"matryoshka_dims": list(settings.matryoshka_dims)}
    return {
        "model": start.sha256,
        "guide": guide.sha256 if guide else None,
        "data": pairs.sha256,
        **{f"--{name.replace('_', '-')}": value for name, value in values.items()},
        "versions": versions(),
    }


def run(
    job: Job,
    model: SentenceTransformer,
    guide: SentenceTransformer | None,
    unfinished: Unfinished,
    identity: dict[str, Any],
    resume: Path | None,
) -> Outcome:
    """Train `model` in place, from `resume` on if that is given. Raises `SystemExit` when a signal stopped it."""
    from post_training.training.trainer import Watch

    with signals() as stop:
        watch = Watch(job.title, unfinished, job.checkpoint_every, stop, facts_of(resume))
        arguments = arguments_of(job, unfinished.folder, resume)
        state = arguments.distributed_state
        assert state is not None
        if state.is_main_process:
            unfinished.begin(identity, resume)
        trainer = make_trainer(job, model, guide, arguments, watch, resume)
        state.wait_for_everyone()
        run_to_end(trainer, watch, resume)
    history = trainer.state.log_history
    losses = tuple(float(entry["loss"]) for entry in history if "loss" in entry)
    assert len(losses) == len(job.plan), (len(losses), len(job.plan))
    return Outcome(
        main=state.is_main_process,
        losses=losses,
        scores=tuple(scores_of(entry) for entry in history if "eval_loss" in entry),
        seconds=watch.seconds(),
        tokens=watch.tokens,
        padding=1 - watch.tokens / max(1, watch.slots),
        pairs=job.plan.size,
        ranks=job.ranks,
        device=str(model.device),
    )
