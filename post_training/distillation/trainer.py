"""The shared trainer and watch, with a rate of their own for embeddings, held-out scores and the best weights."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from torch.nn import functional as F

from mecellem.console import console
from post_training.distillation.data import FEWEST_RELATED
from post_training.distillation.record import METRICS
from post_training.distillation.student import Student, embeddings
from post_training.training.trainer import PlannedTrainer, Watch
from post_training.training.unfinished import Unfinished

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from megatron_recipes.engine.stop import StopSignal

COSINE, RELATION = "cosine", "relation"  # of held-out texts
BEST = "held_out_best.safetensors"  # beside the checkpoints, and in each the one of its time
PAIRED = 1000  # held-out texts whose cosines with each other are compared


class DistillationTrainer(PlannedTrainer):
    """As its parent; `embedding_lr` is the token embeddings' own peak rate."""

    def __init__(self, *, embedding_lr: float | None, **keywords: Any) -> None:
        self.embedding_lr = embedding_lr
        super().__init__(**keywords)

    def create_optimizer(self, *arguments: Any, **keywords: Any) -> torch.optim.Optimizer:
        """The library's, with the embeddings in a group of their own where they have a rate of their own."""
        optimizer = super().create_optimizer(*arguments, **keywords)
        if self.embedding_lr is not None:
            own = embeddings(self.model)
            group = next(group for group in optimizer.param_groups if any(item is own for item in group["params"]))
            group["params"] = [item for item in group["params"] if item is not own]
            optimizer.add_param_group({**group, "params": [own], "lr": self.embedding_lr})
        return optimizer


class HeldOut(BaseEvaluator):
    """Scores of the student on texts that it is not trained on. `vectors` [texts, width of the teacher]: the teacher's."""

    def __init__(self, texts: list[str], vectors: torch.Tensor, prompt: str, batch_size: int) -> None:
        super().__init__()
        self.texts, self.vectors, self.prompt, self.batch_size = texts, vectors, prompt, batch_size
        self.primary_metric = COSINE

    def __call__(self, model: SentenceTransformer, *_: Any, **__: Any) -> dict[str, float]:  # type: ignore[override]
        """`relation`: correlation of the texts' cosines with each other; `cosine`: mean with the teacher's own vectors."""
        found = model.encode(
            self.texts, prompt=self.prompt, batch_size=self.batch_size, show_progress_bar=False, convert_to_tensor=True
        )
        student = F.normalize(found.float().cpu(), dim=-1)
        teacher = F.normalize(self.vectors, dim=-1)
        scores = {}
        if student.shape == teacher.shape:
            scores[COSINE] = float((student * teacher).sum(dim=1).mean())
        if len(student) >= FEWEST_RELATED:
            some = slice(PAIRED)
            above = torch.triu(torch.ones(len(student[some]), len(student[some]), dtype=torch.bool), diagonal=1)
            pairs = torch.stack([(side[some] @ side[some].T)[above] for side in (student, teacher)])
            scores[RELATION] = float(torch.corrcoef(pairs)[0, 1])
        return scores


class DistillationWatch(Watch):
    """As its parent; keeps the best weights, ends where they no longer improve, writes a line a step."""

    def __init__(
        self,
        title: str,
        unfinished: Unfinished,
        checkpoint_every: int,
        stop: StopSignal,
        before: dict[str, Any],
        student: Student,
        metric: str,
        patience: int,
    ) -> None:
        """`metric`: the held-out score that chooses; the others as of the parent."""
        super().__init__(title, unfinished, checkpoint_every, stop, before)
        self.student, self.metric, self.patience = student, metric, patience
        self.best: dict[str, float] | None = before.get("best")
        self.worse = int(before.get("worse", 0))
        self.stopped_early = False

    @property
    def best_file(self) -> Path:
        """Weights of the best step so far."""
        return self.unfinished.folder / BEST

    def restore(self, resume: Path | None) -> None:
        """The best weights as of the checkpoint that the training goes on from (on the main rank)."""
        self.best_file.unlink(missing_ok=True)
        if resume is not None and (resume / BEST).is_file():
            link(resume / BEST, self.best_file)

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """As the parent's; the lines of steps that will be done again go away."""
        super().on_train_begin(args, state, control, **rest)
        if state.is_world_process_zero:
            lines = "".join(f"{json.dumps(line)}\n" for line in metric_lines(state.log_history))
            (self.unfinished.folder / METRICS).write_text(lines, encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any) -> None:
        """As the parent's; and a line for eyes and tools that follow the training."""
        super().on_log(args, state, control, logs, **rest)
        if state.is_world_process_zero and logs is not None:
            with open(self.unfinished.folder / METRICS, "a", encoding="utf-8") as handle:
                for line in metric_lines([{**logs, "step": state.global_step}]):
                    handle.write(f"{json.dumps(line)}\n")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any) -> None:
        """Keep these weights if they are the best; end the training when there were enough looks without."""
        assert metrics is not None
        score = metrics[f"eval_{self.metric}"]
        if math.isfinite(score) and (self.best is None or score > self.best["score"]):
            self.best, self.worse = {"step": state.global_step, "score": score}, 0
            if state.is_world_process_zero:
                self.keep_best()
        else:
            self.worse += 1
        if state.is_world_process_zero:
            console().print(f"held out, step {state.global_step}: {self.metric} {score:.4f}", markup=False)
        if self.patience and self.worse >= self.patience and state.global_step < state.max_steps:
            self.stopped_early = control.should_training_stop = True

    def keep_best(self) -> None:
        """Write the weights, whole or not at all."""
        from safetensors.torch import save_model

        new = self.best_file.with_suffix(".new")
        save_model(self.student.part, str(new))
        with open(new, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(new, self.best_file)

    def load_best(self) -> None:
        """Give the student the best weights. They are moved in place, so `whole` has them, too."""
        from safetensors.torch import load_model

        load_model(self.student.part, str(self.best_file))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The checkpoint is whole once every rank has written its part; it has the best weights so far with it."""
        args.distributed_state.wait_for_everyone()
        if state.is_world_process_zero:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            if self.best is not None:
                link(self.best_file, checkpoint / BEST)
            facts = {"seconds": self.seconds(), "tokens": self.tokens, "slots": self.slots}
            self.unfinished.complete(checkpoint, {**facts, "best": self.best, "worse": self.worse})


def link(file: Path, other: Path) -> None:
    """A second name for a file that is only ever replaced; a copy where the file system has no links."""
    other.unlink(missing_ok=True)
    try:
        os.link(file, other)
    except OSError:
        shutil.copyfile(file, other)


def metric_lines(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """A line a step (loss, rate, norm of the gradient), and one a look at the held-out texts."""
    lines = []
    for entry in history:
        step = int(entry["step"])
        if "loss" in entry:
            named = {"loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm"}
            lines.append({"step": step, **{ours: float(entry[key]) for key, ours in named.items() if key in entry}})
        held_out = {f"held_out_{name}": float(entry[key]) for name in (COSINE, RELATION) if (key := f"eval_{name}") in entry}
        if held_out:
            lines.append({"step": step, **held_out})
    return lines
