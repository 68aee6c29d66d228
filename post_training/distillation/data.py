"""What a distillation reads: which texts are held out, in which batch the others stand, and a batch as the model takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from post_training.distillation.settings import DistillationSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from post_training.batches import Rows
    from post_training.distillation.store import VectorStore
    from post_training.distillation.student import Student

FEWEST_RELATED = 3  # held-out texts: two have one cosine, and a correlation needs several
TEXT = "text"  # the one column's name, in front of what the tokenizer makes
LABELS = ("label",)


@dataclass(frozen=True, slots=True)
class Batches:
    """`plan` [steps, texts]: rows of the store; `held_out` [texts]: those that are never trained on.

    `truncated` of the texts to train on have more tokens than are read, `tokens_cut` in all.
    """

    plan: Rows
    held_out: NDArray[np.int64]
    train: int
    truncated: int
    tokens_cut: int


def split_rows(store: VectorStore, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on, and rows held out: those with the smallest hashes. Raises `UserError` where either is empty.

    A text is on the same side in whatever order, corpus or shard it stands.
    """
    import numpy as np

    out = store.hash_words() < np.uint64(int(share * 2**64))
    train, held_out = np.flatnonzero(~out), np.flatnonzero(out)
    if share and not len(held_out):
        raise UserError(f"--held-out {share} leaves no text of {len(store):,} to choose by: raise it, or give 0 for none")
    return train, held_out


def make_batches(store: VectorStore, student: Student, settings: DistillationSettings) -> Batches:
    """All batches of the training. Raises `UserError` where there is not even one."""
    import numpy as np

    from post_training.batches import plan_batches

    train, held_out = split_rows(store, settings.held_out)
    if settings.loss == "relational" and 0 < len(held_out) < FEWEST_RELATED:
        raise UserError(
            f"--held-out {settings.held_out} leaves {len(held_out)} of {len(store):,} texts, and --loss relational chooses by "
            f"the cosines between {FEWEST_RELATED} or more: raise it, or give 0 for none"
        )
    if len(train) < settings.batch_size:
        raise UserError(
            f"{len(train):,} texts to train on make no batch of {settings.batch_size}: lower --batch-size or --held-out, or "
            "make vectors of more texts"
        )
    tokens = student_tokens(store, train, student)
    lengths = np.minimum(tokens, student.length)
    plan = plan_batches(
        np.arange(len(train), dtype=np.int64)[:, None],  # no text stands twice
        lengths.astype(np.float64),
        batch_size=settings.batch_size,
        steps=settings.steps,
        epochs=settings.epochs,
        group_by_length=settings.group_by_length,
        seed=settings.seed,
    )
    over = tokens - lengths
    return Batches(train[plan], held_out, len(train), int((over > 0).sum()), int(over.sum()))


def student_tokens(store: VectorStore, rows: NDArray[np.int64], student: Student) -> NDArray[np.int64]:
    """[rows]: tokens of the texts in the student's own vocabulary, uncut."""
    import numpy as np

    from mecellem.console import progress_bar
    from post_training.distillation.encode import CHUNK, count_tokens

    parts = []
    with progress_bar(transient=True) as bar:
        task = bar.add_task("counting tokens (texts)", total=len(rows))
        for start in range(0, len(rows), CHUNK):
            texts = store.texts(rows[start : start + CHUNK].tolist())
            parts.append(count_tokens(student.part, texts, student.prompt, lambda count: bar.advance(task, count)))
    return np.concatenate(parts).astype(np.int64)


class Collator:
    """Rows of the store as the trainer's batch: tokens of the texts, and the teacher's vectors as labels."""

    valid_label_columns = LABELS  # the library's trainer asks for it

    def __init__(self, store: VectorStore, model: SentenceTransformer, prompt: str) -> None:
        self.store, self.preprocess, self.prompt = store, model.preprocess, prompt

    def __call__(self, features: Sequence[dict[str, int]]) -> dict[str, Any]:
        """One batch."""
        rows = [feature["row"] for feature in features]
        made = self.preprocess(self.store.texts(rows), prompt=self.prompt)
        return {f"{TEXT}_{name}": value for name, value in made.items()} | {"label": self.store.vectors(rows)}
