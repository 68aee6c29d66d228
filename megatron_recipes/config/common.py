"""What every kind of run has: layout, precision, AdamW, and the base class of all runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mecellem.errors import UserError

Precision = Literal["fp32", "bf16", "fp8_hybrid", "fp8_current", "fp8_block"]
LayerSpec = Literal["auto", "local", "transformer_engine"]

VOCABULARY_MULTIPLE = 128  # Megatron-LM pads the vocabulary to this many entries per tensor-parallel rank


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition`."""
    if not condition:
        raise UserError(message)


def padded_vocab_size(vocab_size: int, tensor_parallel: int) -> int:
    """Rows of the embedding, so that every tensor-parallel rank holds a multiple of 128 of them."""
    multiple = VOCABULARY_MULTIPLE * tensor_parallel
    return -(-vocab_size // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Fp8Config:
    """How the linears of an `fp8_*` precision compute; without one of those, only the defaults are allowed."""

    # the first and the last layer stay in BF16 (Megatron-Core's advice for stability); None: yes, but for fp8_hybrid, whose
    # delayed scaling Megatron-Core does not mix with layers in BF16
    first_last_layers_bf16: bool | None = None
    param_gather: bool = False  # store weights in FP8 and gather them so between data-parallel ranks
    emulate: bool = False  # quantise and dequantise in torch: shows the numerics anywhere, and is slower than BF16

    def check(self, precision: str) -> None:
        """Raise `UserError` for FP8 settings without FP8."""
        require(
            precision.startswith("fp8") or self == Fp8Config(),
            f"--fp8.* settings with --precision {precision} would do nothing: use fp8_hybrid, fp8_current or fp8_block",
        )
        require(
            not (self.emulate and self.param_gather),
            "--fp8.emulate keeps the weights in BF16, so --fp8.param-gather would do nothing: leave one of them out",
        )


@dataclass(frozen=True, slots=True)
class ParallelConfig:
    """How the model is spread over ranks; data parallel is what is left of the world."""

    tensor: int = 1  # TP: each layer's matrices over this many ranks
    pipeline: int = 1  # PP: layers over this many ranks
    sequence: bool = False  # SP: activations between TP regions split along the sequence
    context: int = 1  # CP: each sequence over this many ranks, for long contexts (decoders)

    @property
    def model_ranks(self) -> int:
        """Ranks of one model replica."""
        return self.tensor * self.pipeline * self.context

    def data_parallel(self, world_size: int) -> int:
        """Ranks per model replica divided out of `world_size`; `UserError` when it does not divide."""
        context = f" x --parallel.context {self.context}" if self.context > 1 else ""
        require(
            world_size % self.model_ranks == 0,
            f"{world_size} ranks do not divide by --parallel.tensor {self.tensor} x --parallel.pipeline "
            f"{self.pipeline}{context}: start a multiple of {self.model_ranks} (--nproc)",
        )
        return world_size // self.model_ranks

    def check(self, num_layers: int, num_attention_heads: int, ffn_hidden_size: int) -> None:
        """Raise `UserError` for a layout that a model of this shape does not allow."""
        for name in ("tensor", "pipeline", "context"):
            require(getattr(self, name) >= 1, f"--parallel.{name} must be at least 1")
        require(
            num_attention_heads % self.tensor == 0,
            f"{num_attention_heads} attention heads do not divide by --parallel.tensor {self.tensor}",
        )
        require(
            ffn_hidden_size % self.tensor == 0,
            f"--model.ffn-hidden-size {ffn_hidden_size} does not divide by --parallel.tensor {self.tensor}",
        )
        require(
            num_layers % self.pipeline == 0,
            f"{num_layers} layers do not divide by --parallel.pipeline {self.pipeline}",
        )
        require(
            not self.sequence or self.tensor > 1,
            "--parallel.sequence splits activations over tensor-parallel ranks: set --parallel.tensor 2 or more",
        )

    def check_length(self, length: int, setting: str) -> None:
        """Raise `UserError` for sequences of `length` tokens (named by `setting`) that the layout cannot split."""
        if self.context > 1:
            require(
                length % (2 * self.context) == 0,
                f"{setting} {length} does not divide by 2 x --parallel.context {self.context}: each rank takes two parts",
            )
        require(
            not self.sequence or length // self.context % self.tensor == 0,
            f"{setting} {length} does not divide by --parallel.tensor {self.tensor}"
            f"{f' x --parallel.context {self.context}' if self.context > 1 else ''}, which --parallel.sequence needs",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamConfig:
    """AdamW with decoupled weight decay; norms and biases are not decayed."""

    beta1: float = 0.9  # TabiBERT and Ettin (paper 1 does not publish its own); Qwen3 and Llama alike
    beta2: float = 0.98  # TabiBERT and Ettin; decoder recipes set their own
    epsilon: float = 1e-6  # TabiBERT and Ettin; decoder recipes set their own
    weight_decay: float = 1e-5  # TabiBERT and Ettin; decoder recipes set their own
    clip_grad: float = 1.0  # Megatron-LM's default; 0 turns clipping off
    distributed: bool = True  # shard optimizer states over data-parallel ranks

    def check(self) -> None:
        """Raise `UserError` for values outside their range."""
        require(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "--optimizer.beta1 and --optimizer.beta2 must be in [0, 1)")
        require(self.epsilon > 0, "--optimizer.epsilon must be positive")
        require(self.weight_decay >= 0, "--optimizer.weight-decay must not be negative")
        require(self.clip_grad >= 0, "--optimizer.clip-grad must not be negative (0 turns clipping off)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(ABC):
    """What runs of every kind have. `recipe()` functions return a subclass, the command line overrides it,
    `run.yaml` records it. What a kind adds: `model`, `data`, and how the learning rate and batch go over tokens.
    """

    name: str
    model: Any  # the model's shape; each kind of run has its own type
    data: Any  # the tokenizer and the corpora
    optimizer: AdamConfig
    parallel: ParallelConfig = ParallelConfig()
    init_from: Path | None = None  # Megatron checkpoint to start from (`convert import`, `convert clone`); None: random weights
    precision: Precision = "bf16"  # paper 1 trains in BF16 mixed precision
    fp8: Fp8Config = Fp8Config()
    layer_spec: LayerSpec = "auto"  # transformer_engine on CUDA where it is installed and not for fp32, else local
    seed: int = 1234  # weights, document order, masks (Megatron-LM's default)
    validation_interval: int = 100  # steps between validation passes
    checkpoint_interval: int = 100  # steps between checkpoints; the last step always has one
    keep_checkpoints: int = 0  # the newest ones that stay, beside those that `mecellem select` chose; 0 keeps all
    log_interval: int = 1  # steps between lines of metrics.jsonl

    @abstractmethod
    def check(self, world_size: int) -> None:
        """Raise `UserError` for whatever cannot run on `world_size` ranks, before any work starts."""

    def check_common(self) -> None:
        """Raise `UserError` for values that cannot work, whatever the kind of run."""
        self.optimizer.check()
        self.fp8.check(self.precision)
        for name in ("validation_interval", "checkpoint_interval", "log_interval"):
            require(getattr(self, name) > 0, f"--{name.replace('_', '-')} must be positive")
        require(self.keep_checkpoints >= 0, "--keep-checkpoints must not be negative (0 keeps all)")


def positive(values: Mapping[str, float], prefix: str) -> None:
    """Raise `UserError` for the first of `values` (by field name) that is not above zero."""
    for name, value in values.items():
        require(value > 0, f"--{prefix}.{name.replace('_', '-')} must be positive")
