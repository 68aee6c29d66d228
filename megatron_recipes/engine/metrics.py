"""`metrics.jsonl` (one line a step), TensorBoard events and the progress bar: what rank 0 keeps and shows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mecellem.console import progress_bar
from mecellem.files import atomic_write, disk_full_is_user_error
from megatron_recipes.run_folder import read_metrics

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


LOG_SECONDS = 30.0  # between two lines of a job's log, where there is no terminal for a progress bar


class Metrics:
    """Writer of a run's figures. Lines after `resume_step` are dropped first: those steps are about to be done again."""

    def __init__(self, run: Path, resume_step: int, total_steps: int, tokens_after: Callable[[int], int]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.tokens_after = tokens_after
        path = run / "metrics.jsonl"
        kept = [line for line in read_metrics(run) if line["step"] <= resume_step]
        with atomic_write(path) as handle:
            handle.writelines(json.dumps(line) + "\n" for line in kept)
        self.path = path
        self.handle = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=resume_step + 1)
        self.bar: Progress = progress_bar()
        self.task: TaskID = self.bar.add_task("train", total=total_steps, completed=resume_step)
        self.total, self.logged = total_steps, time.monotonic()
        self.validation = ""

    def __enter__(self) -> Metrics:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()
        self.handle.close()
        with disk_full_is_user_error(self.path.parent):  # the events' last lines are written here
            self.board.close()

    def _write(self, step: int, values: dict[str, float]) -> None:
        with disk_full_is_user_error(self.path):
            self.handle.write(json.dumps({"step": step, "tokens": self.tokens_after(step), **values}) + "\n")
            self.handle.flush()
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def train(self, step: int, values: dict[str, float], write: bool, stage: str | None = None) -> None:
        """One optimizer step: `loss`, `lr`, `grad_norm`, `masked_tokens` or `loss_tokens`, `seconds`, `tokens_per_second`."""
        if write:
            self._write(step, values)
        text = (
            f"{f'{stage}  ' if stage else ''}loss {values['loss']:.3f}  lr {values['lr']:.1e}  grad {values['grad_norm']:.2f}  "
            f"{values['tokens_per_second']:,.0f} tok/s{self.validation}"
        )
        self.bar.update(self.task, completed=step, description=text)
        if self.bar.disable and (step == self.total or time.monotonic() - self.logged >= LOG_SECONDS):
            print(f"step {step}/{self.total}  {text}", flush=True)
            self.logged = time.monotonic()

    def validate(self, step: int, values: dict[str, float]) -> None:
        """One validation pass: `validation_loss`, `validation_tokens`, and for encoders `validation_accuracy`."""
        self._write(step, values)
        self.validation = f"  | val {values['validation_loss']:.3f}"
        if "validation_accuracy" in values:
            self.validation += f", {values['validation_accuracy']:.1%} right"
