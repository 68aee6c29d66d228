"""Masked language modelling of a ModernBERT over one corpus. Its cursor is the step number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mecellem.errors import UserError
from megatron_recipes.config import EncoderConfig, EncoderRun
from megatron_recipes.data.batches import MlmBatch, MlmDataset, training_batches, validation_batches
from megatron_recipes.data.corpus import SpecialTokens, TokenCorpus
from megatron_recipes.engine.tasks.task import Loss, StepShape, Task
from megatron_recipes.models.fp8_settings import refuse_fp8_micro_batch

if TYPE_CHECKING:
    import torch


class MaskedTask(Task):
    """An `EncoderRun` with its two corpora open."""

    validation_sums = 3
    counted = "masked_tokens"

    def __init__(self, config: EncoderRun, verify: bool) -> None:
        """Raises `UserError` for corpora and tokenizers that do not fit the run or each other."""
        special = SpecialTokens.read(config.data.tokenizer)
        if special.vocab_size != config.model.vocab_size:
            raise UserError(
                f"the tokenizer in {config.data.tokenizer} has {special.vocab_size:,} entries, the model "
                f"{config.model.vocab_size:,}: set --model.vocab-size {special.vocab_size} or give another --data.tokenizer"
            )
        train = TokenCorpus.open(config.data.train, config.data.tokenizer, verify)
        validation = TokenCorpus.open(config.data.validation, config.data.tokenizer, verify)
        length, seed, data = config.data.sequence_length, config.seed, config.data
        self.config = config
        self.training = MlmDataset(train, special, length, data.mask_probability, seed, shuffle=True)
        self.validation = MlmDataset(validation, special, length, data.validation_mask_probability, seed, shuffle=False)

    def check(self, data_parallel: int) -> None:
        """Raise `UserError` for a micro batch that FP8 cannot multiply; `EncoderRun.check` knows the rest."""
        refuse_fp8_micro_batch(self.config)

    def corpora(self) -> dict[str, TokenCorpus]:
        """Training and validation."""
        return {"data.train": self.training.packed.corpus, "data.validation": self.validation.packed.corpus}

    def reads(self) -> list[Path]:
        """The weights to start from, both corpora and the tokenizer."""
        data, start = self.config.data, self.config.init_from
        return [*([] if start is None else [start]), data.train, data.validation, data.tokenizer]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.steps

    def tokens_after(self, step: int) -> int:
        """Every step reads the same number."""
        return step * self.config.tokens_per_step

    def learning_rate(self, step: int) -> float:
        """WSD over the tokens of the run, the step's own included."""
        total = self.tokens_after(self.steps)
        return self.config.schedule.learning_rate(self.tokens_after(step), self.config.optimizer.lr, total)

    def shape(self, step: int) -> StepShape:
        """The same for every step."""
        schedule = self.config.schedule
        return StepShape(schedule.global_batch_size, schedule.micro_batch_size, self.config.data.sequence_length)

    def build_model(self) -> torch.nn.Module:
        """A `ModernBertModel`."""
        return build_encoder(self.config)

    def model_at(self, step: int) -> EncoderConfig:
        """The model does not change during the run."""
        return self.config.model

    def batches(self, step: int, rank: int, size: int) -> Iterator[MlmBatch]:
        """The step's share of the shuffled corpus."""
        schedule = self.config.schedule
        return training_batches(self.training, step - 1, schedule.global_batch_size, schedule.micro_batch_size, rank, size)

    def validation_batches(self, step: int, rank: int, size: int) -> list[MlmBatch]:
        """The same documents with the same masks every time."""
        micro = self.config.schedule.micro_batch_size
        return list(validation_batches(self.validation, self.config.data.validation_sequences, micro, rank, size))

    def forward(self, model: torch.nn.Module, batch: MlmBatch) -> tuple[torch.Tensor, Callable[[torch.Tensor], Loss]]:
        """Losses of the masked tokens; in evaluation also whether the top-1 prediction is right."""
        import torch

        from megatron_recipes.engine import runtime

        device = runtime.device()
        ids, labels, cu_seqlens = (torch.from_numpy(x).to(device) for x in (batch.input_ids, batch.labels, batch.cu_seqlens))
        output = model(ids, cu_seqlens=cu_seqlens, labels=labels)
        return output, _training_loss if model.training else _validation_loss

    def validation_figures(self, sums: list[float]) -> Mapping[str, float]:
        """Mean loss and top-1 accuracy on the masked tokens."""
        loss, count, right = sums
        return {"validation_loss": loss / count, "validation_accuracy": right / count, "validation_tokens": count}


def _training_loss(output: torch.Tensor) -> Loss:
    """Sum of losses and number of masked tokens; Megatron-Core divides gradients by the number in the global batch."""
    import torch

    total = output.float().sum()
    count = torch.tensor(output.numel(), dtype=torch.int, device=output.device)
    return total, count, {"sums": torch.stack([total.detach().double(), count.double()])}


def _validation_loss(output: torch.Tensor) -> Loss:
    import torch

    losses, right = output.double()
    count = torch.tensor(losses.numel(), dtype=torch.int, device=output.device)
    return losses.sum().float(), count, {"sums": torch.stack([losses.sum(), count.double(), right.sum()])}


def build_encoder(config: EncoderRun) -> torch.nn.Module:
    """This rank's stage of a `ModernBertModel` with its initial weights, on the CPU."""
    from megatron_recipes.engine import runtime
    from megatron_recipes.engine.refusals import refuse_stock_window, resolve_layer_spec
    from megatron_recipes.models.dtypes import DTYPES
    from megatron_recipes.models.fp8_settings import fp8_settings
    from megatron_recipes.models.init import initialize_weights
    from megatron_recipes.models.modernbert import ModernBertModel, encoder_config

    spec = resolve_layer_spec(config, runtime.has_cuda())
    fp8 = fp8_settings(config.precision, config.fp8)
    megatron = encoder_config(config.model, config.parallel, DTYPES[config.precision], fp8, spec)
    model = ModernBertModel(megatron, config.model.vocab_size, config.model.max_sequence_length, spec)
    refuse_stock_window(model)
    initialize_weights(model, config.seed)
    return model
