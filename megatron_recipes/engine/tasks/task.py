"""The interface between a kind of run and the engine that steps, saves and resumes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_recipes.run_folder import Extent

if TYPE_CHECKING:
    import torch

    from megatron_recipes.data.corpus import TokenCorpus

Loss = tuple["torch.Tensor", "torch.Tensor", dict[str, "torch.Tensor"]]  # sum, number of tokens, figures to add up


@dataclass(frozen=True, slots=True)
class StepShape:
    """One optimizer step, over all data-parallel ranks, and one micro batch of it."""

    global_batch_size: int  # packed sequences per optimizer step
    micro_batch_size: int  # packed sequences per forward pass of one model replica
    sequence_length: int  # tokens of one packed sequence

    @property
    def tokens(self) -> int:
        """Tokens of the step."""
        return self.global_batch_size * self.sequence_length


class Task(ABC):
    """A run's data, model and schedule. Steps count from 1."""

    validation_sums: int  # figures that the loss of a validation pass adds up
    counted: str  # what the loss is a mean over, as `metrics.jsonl` names it

    curriculum_text: str | None = None  # the curriculum as it was read, for the run's record

    @abstractmethod
    def corpora(self) -> dict[str, TokenCorpus]:
        """Every corpus, by the setting that names it or, in a curriculum, its path."""

    @abstractmethod
    def reads(self) -> list[Path]:
        """Files and folders that the run reads."""

    @abstractmethod
    def check(self, data_parallel: int) -> None:
        """Raise `UserError` for batches and lengths that the layout cannot split (beyond what `RunConfig.check` knows)."""

    def check_new(self) -> None:  # noqa: B027 - optional
        """Raise `UserError` for what keeps a run from ending that begins at its first step."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Optimizer steps of the whole run."""

    def extent(self) -> Extent:
        """The length of the run, for its record."""
        per_step = self.shape(1).tokens if self.curriculum_text is None else None
        corpora = {name: corpus.manifest.files[f"{corpus.prefix.name}.bin"].sha256 for name, corpus in self.corpora().items()}
        return Extent(self.steps, self.tokens_after(self.steps), per_step, corpora, self.curriculum_text)

    @abstractmethod
    def tokens_after(self, step: int) -> int:
        """Tokens that the run has read when `step` is done."""

    @abstractmethod
    def learning_rate(self, step: int) -> float:
        """The rate that `step` uses."""

    @abstractmethod
    def shape(self, step: int) -> StepShape:
        """Batch and length of `step`."""

    def stage(self, step: int) -> str | None:
        """The name of the stage that `step` belongs to; None where a run has no stages."""
        return None

    @abstractmethod
    def build_model(self) -> torch.nn.Module:
        """This rank's stage of the model with its initial weights, on the CPU."""

    def prepare_model(self, model: torch.nn.Module, step: int) -> None:  # noqa: B027 - optional
        """Set what changes between the stages of a run, before `step`."""

    @abstractmethod
    def model_at(self, step: int) -> Any:
        """The model's configuration as a checkpoint of `step` records it."""

    @abstractmethod
    def batches(self, step: int, rank: int, size: int) -> Iterator[Any]:
        """The micro batches of data-parallel rank `rank` of `size` for `step`; called once for each step, in order."""

    @abstractmethod
    def validation_batches(self, step: int, rank: int, size: int) -> list[Any]:
        """The same number of micro batches for each rank; the same whenever `step` has the same shape."""

    @abstractmethod
    def forward(self, model: torch.nn.Module, batch: Any) -> tuple[torch.Tensor, Callable[[torch.Tensor], Loss]]:
        """The output of this pipeline stage, and what turns the last stage's output into the loss."""

    @abstractmethod
    def validation_figures(self, sums: list[float]) -> Mapping[str, float]:
        """`validation_*` figures from the sums that the losses of a validation pass returned, world-wide."""

    def cursor(self) -> dict[str, Any] | None:
        """Where the data stand, for a checkpoint; None where the step says it all."""
        return None

    def restore(self, cursor: Mapping[str, Any] | None, step: int) -> None:  # noqa: B027 - optional
        """Go to where a checkpoint of `step` left the data."""
