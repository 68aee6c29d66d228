"""sentence-transformers' trainer with planned batches, counted tokens, checkpoints that are whole, and a way to stop it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from mecellem.console import console, progress_bar
from mecellem.errors import UserError
from post_training.training.unfinished import Unfinished

if TYPE_CHECKING:
    from datasets import Dataset

    from megatron_recipes.engine.stop import StopSignal
    from post_training.batches import Rows

LOG_SECONDS = 30.0  # between two lines of a job's log, where there is no terminal for a progress bar


class PlannedBatches(DefaultBatchSampler):
    """Batches as `post_training.batches` planned them. `plan` [batches, pairs of one rank]."""

    def __init__(self, plan: Rows) -> None:
        super().__init__(range(len(plan)), batch_size=plan.shape[1], drop_last=True)
        self.plan = plan

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.plan:
            yield batch.tolist()

    def __len__(self) -> int:
        return len(self.plan)


class PlannedTrainer(SentenceTransformerTrainer):
    """The library's trainer. Step t is made of row t of `plan` [steps, pairs of all ranks], whatever the number of ranks."""

    def __init__(self, *, plan: Rows, ranks: int, **keywords: Any) -> None:
        self.plan = plan.reshape(len(plan) * ranks, -1)  # ranks take turns
        self.counts = torch.zeros(2, dtype=torch.int64)  # real tokens, and places in batches for them, since the last look
        super().__init__(**keywords)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Nothing: the card is ours, and the library's callback would ask a model hub about the data."""

    def get_batch_sampler(self, dataset: Dataset, batch_size: int, drop_last: bool, *_: Any, **__: Any) -> DefaultBatchSampler:
        """The plan for the pairs to train on; held-out pairs in their order."""
        if dataset is self.train_dataset:
            return PlannedBatches(self.plan)
        whole = len(dataset) >= batch_size  # else the one batch that there is
        return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=whole)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *rest: Any, **keywords: Any) -> torch.Tensor:
        """As the library's; counts tokens."""
        for name, value in inputs.items():
            if name.endswith("_attention_mask"):
                self.counts += torch.tensor([int(value.sum()), value.numel()])
            elif name.endswith("_cu_seq_lens_q"):  # texts without padding, one after another
                self.counts += int(value[-1])
        return super().training_step(model, inputs, *rest, **keywords)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The model of a checkpoint, without the library's card."""
        assert output_dir is not None
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(output_dir, create_model_card=False)


class Watch(TrainerCallback):
    """Shows progress, checks the loss, has checkpoints saved, and stops all ranks together when a signal came."""

    def __init__(
        self, title: str, unfinished: Unfinished, checkpoint_every: int, stop: StopSignal, before: dict[str, Any]
    ) -> None:
        """`before`: seconds, tokens and slots of the training so far, from the checkpoint it goes on from."""
        self.unfinished, self.every, self.stop, self.before = unfinished, checkpoint_every, stop, before
        self.tokens, self.slots = int(before["tokens"]), int(before["slots"])
        self.stopped_by = 0
        self.trainer: PlannedTrainer
        self.bar = progress_bar(transient=True)
        self.task = self.bar.add_task(title, total=None)
        self.title = title

    def seconds(self) -> float:
        """Of the whole training, up to now."""
        return float(self.before["seconds"]) + time.perf_counter() - self.started

    def tokens_per_second(self) -> float:
        """Real tokens of all columns and ranks in a second of this process, evaluation and checkpoints included."""
        return (self.tokens - int(self.before["tokens"])) / max(time.perf_counter() - self.started, 1e-9)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock and the bar."""
        self.started = self.logged = time.perf_counter()
        self.bar.update(self.task, total=state.max_steps, completed=state.global_step)
        if state.is_world_process_zero:
            self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ranks agree on tokens and signals; a signal ends the training with a checkpoint."""
        seen = torch.tensor([*self.trainer.counts.tolist(), self.stop.received], device=args.device)
        signals = seen[2:].clone()
        if args.world_size > 1:
            torch.distributed.all_reduce(seen)
            torch.distributed.all_reduce(signals, op=torch.distributed.ReduceOp.MAX)
        self.trainer.counts.zero_()
        self.tokens += int(seen[0])
        self.slots += int(seen[1])
        last = state.global_step >= state.max_steps
        if int(signals[0]) and not last:
            self.stopped_by = int(signals[0])
            control.should_save = control.should_training_stop = True
        if self.every and state.global_step % self.every == 0 and not last:
            control.should_save = True
        if last and args.eval_strategy != "no":
            control.should_evaluate = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Show the step. Raises `UserError` for a loss that is no number any more."""
        if logs is None or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise UserError(f"the loss is {logs['loss']} at step {state.global_step}: lower --lr, or leave out --bf16")
        said = f"loss {logs['loss']:.3f}, {self.tokens_per_second():,.0f} tokens/s"
        self.bar.update(self.task, completed=state.global_step, description=f"{self.title}: {said}")
        now = time.perf_counter()
        if state.is_world_process_zero and not console().is_terminal and now - self.logged > LOG_SECONDS:
            self.logged = now
            console().print(f"{self.title}: step {state.global_step} of {state.max_steps}, {said}", markup=False)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The checkpoint is whole once every rank has written its part."""
        args.distributed_state.wait_for_everyone()
        if state.is_world_process_zero:
            facts = {"seconds": self.seconds(), "tokens": self.tokens, "slots": self.slots}
            self.unfinished.complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", facts)

    def close(self) -> None:
        """Take the bar away."""
        self.bar.stop()
