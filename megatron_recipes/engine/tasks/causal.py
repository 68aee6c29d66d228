"""Causal language modelling of a decoder through the stages of a curriculum. Its cursor says where each source stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mecellem.errors import UserError
from mecellem.yaml_file import read_text
from megatron_recipes.config import DecoderConfig, DecoderRun, RopeScaling
from megatron_recipes.data.causal import CausalBatch, split_for_context, validation_batches
from megatron_recipes.data.corpus import TokenCorpus
from megatron_recipes.data.curriculum import OF, Curriculum
from megatron_recipes.data.curriculum_data import CurriculumData
from megatron_recipes.data.curriculum_stage import Stage
from megatron_recipes.data.supply import check_same_tokenizer, open_causal_corpus, open_sources
from megatron_recipes.engine.refusals import refuse_stages
from megatron_recipes.engine.tasks.task import Loss, StepShape, Task

if TYPE_CHECKING:
    import torch


class CausalTask(Task):
    """A `DecoderRun` with its curriculum read and every corpus open. (The curriculum counts steps from 0.)"""

    validation_sums = 2
    counted = "loss_tokens"

    def __init__(self, config: DecoderRun, verify: bool) -> None:
        """Raises `UserError` for a curriculum, corpora and a tokenizer that do not fit the run or each other."""
        self.config = config
        self.curriculum_text = read_text(config.curriculum, of=OF)  # once: the record is of what is trained
        self.curriculum = Curriculum.parse(self.curriculum_text, config.curriculum)
        tokenizer, rows = config.data.tokenizer, config.model.vocab_size
        self.sources = open_sources(self.curriculum, tokenizer, rows, verify)
        self.data = CurriculumData(self.curriculum, self.sources, config.seed)
        self.validation = open_causal_corpus(config.data.validation, tokenizer, rows, verify)
        path, corpus = next(iter(self.sources.items()))
        check_same_tokenizer("--data.validation: ", (config.data.validation, self.validation.manifest), (path, corpus.manifest))
        if int(np.diff(self.validation.document_starts).max(initial=0)) < 2:
            raise UserError(
                f"--data.validation {config.data.validation}: no document has a token to predict from another one; give a "
                "corpus of real documents"
            )

    def corpora(self) -> dict[str, TokenCorpus]:
        """The sources of every stage, and validation."""
        return {str(path): corpus for path, corpus in self.sources.items()} | {"data.validation": self.validation}

    def reads(self) -> list[Path]:
        """The weights to start from, the curriculum, its corpora, the validation corpus and the tokenizer."""
        sources = {source.path: None for stage in self.curriculum.stages for source in stage.sources}
        start = [] if self.config.init_from is None else [self.config.init_from]
        return [*start, self.config.curriculum, *sources, self.config.data.validation, self.config.data.tokenizer]

    def check(self, data_parallel: int) -> None:
        """As `engine.refusals.refuse_stages`, which a dry run asks, too."""
        refuse_stages(self.config, self.curriculum, data_parallel)

    def check_new(self) -> None:
        """Raise `UserError` where a source has fewer tokens than the curriculum asks of it."""
        self.data.check_supply()

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return self.curriculum.steps

    def tokens_after(self, step: int) -> int:
        """Stages differ in the size of their batches."""
        return self.curriculum.tokens_after(step)

    def learning_rate(self, step: int) -> float:
        """As the step's stage says."""
        return self.curriculum.learning_rate(step - 1)

    def shape(self, step: int) -> StepShape:
        """As the step's stage says."""
        stage = self.curriculum.stage_at(step - 1)
        return StepShape(stage.sequences_per_step, self._rows(stage), stage.seq_len)

    def _rows(self, stage: Stage) -> int:
        return self.config.micro_batch_tokens // stage.seq_len

    def stage(self, step: int) -> str:
        """The stage's name."""
        return self.curriculum.stage_at(step - 1).name

    def build_model(self) -> torch.nn.Module:
        """A `DecoderModel`."""
        return build_decoder(self.config)

    def model_at(self, step: int) -> DecoderConfig:
        """The model with the RoPE of the step's stage, and the positions that it has been trained on by then."""
        theta, scaling = self._rope(step)
        positions = self.curriculum.positions(self.curriculum.place(step - 1)[0], self.config.model.max_sequence_length)
        return dataclasses.replace(self.config.model, rope_theta=theta, rope_scaling=scaling, max_sequence_length=positions)

    def _rope(self, step: int) -> tuple[float, RopeScaling]:
        theta, scaling = self.config.model.rope_theta, self.config.model.rope_scaling
        for stage in self.curriculum.stages[: self.curriculum.place(step - 1)[0] + 1]:
            theta = stage.rope_theta if stage.rope_theta is not None else theta
            scaling = stage.rope_scaling if stage.rope_scaling is not None else scaling
        return theta, scaling

    def prepare_model(self, model: Any, step: int) -> None:
        """Set the RoPE of the step's stage."""
        model.set_rope(*self._rope(step))

    def batches(self, step: int, rank: int, size: int) -> Iterator[CausalBatch]:
        """The next global batch's share; the cursor moves on by the whole of it."""
        return iter(self.data.next_step(rank, size, self.shape(step).micro_batch_size))

    def validation_batches(self, step: int, rank: int, size: int) -> list[CausalBatch]:
        """The validation corpus from its start, in sequences of the stage's length."""
        stage = self.curriculum.stage_at(step - 1)
        sequences, rows = self.config.data.validation_sequences, self._rows(stage)
        return list(validation_batches(self.validation, stage.seq_len, stage.attention, sequences, rows, rank, size))

    def forward(self, model: torch.nn.Module, batch: CausalBatch) -> tuple[torch.Tensor, Callable[[torch.Tensor], Loss]]:
        """Losses `[b, s / CP]` of this context-parallel rank's tokens, 0 where a token has no label."""
        import torch
        from megatron.core import parallel_state as mpu

        from megatron_recipes.engine import runtime

        device, cp = runtime.device(), mpu.get_context_parallel_world_size()
        arrays = [batch.input_ids, batch.labels, batch.positions]
        if cp > 1:
            arrays = [split_for_context(array, mpu.get_context_parallel_rank(), cp) for array in arrays]
        ids, labels, positions = (torch.from_numpy(array).to(device) for array in arrays)
        cu_seqlens = None if batch.cu_seqlens is None else torch.from_numpy(batch.cu_seqlens).to(device)
        output = model(ids, labels=labels, cu_seqlens=cu_seqlens, positions=positions)
        return output, partial(_loss, labels)

    def validation_figures(self, sums: list[float]) -> Mapping[str, float]:
        """Mean loss over the tokens that have a label."""
        loss, count = sums
        return {"validation_loss": loss / count, "validation_tokens": count}

    def cursor(self) -> dict[str, Any]:
        """Stage, sequences done in it, and where each source stands."""
        return self.data.cursor

    def restore(self, cursor: Mapping[str, Any] | None, step: int) -> None:
        """Go on where the checkpoint left each source; the curriculum may have changed as `CurriculumData.restore` allows."""
        assert cursor is not None, "a decoder's checkpoint has a cursor"
        self.data.restore(cursor)


def _loss(labels: torch.Tensor, output: torch.Tensor) -> Loss:
    """Sum of losses and number of labels; Megatron-Core divides gradients by the number in the global batch."""
    import torch

    total = output.float().sum()
    count = (labels >= 0).sum().to(torch.int)
    return total, count, {"sums": torch.stack([total.detach().double(), count.double()])}


def build_decoder(config: DecoderRun) -> torch.nn.Module:
    """This rank's stage of a `DecoderModel` with its initial weights, on the CPU."""
    from megatron_recipes.engine import runtime
    from megatron_recipes.engine.refusals import resolve_layer_spec
    from megatron_recipes.models.decoder import DecoderModel, decoder_transformer_config
    from megatron_recipes.models.dtypes import DTYPES
    from megatron_recipes.models.fp8_settings import fp8_settings
    from megatron_recipes.models.init import initialize_weights

    spec = resolve_layer_spec(config, runtime.has_cuda())
    fp8 = fp8_settings(config.precision, config.fp8)
    megatron = decoder_transformer_config(config.model, config.parallel, DTYPES[config.precision], fp8, spec)
    model = DecoderModel(megatron, config.model, layer_spec=spec, linears="fp8_emulated" if config.fp8.emulate else "plain")
    initialize_weights(model, config.seed)
    return model
