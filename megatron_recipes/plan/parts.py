"""What the plans of encoders and decoders share: the machine, memory, checkpoints, and how numbers are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from mecellem.console import human_time
from mecellem.errors import UserError
from megatron_recipes.config import RunConfig

H100_PEAK_TFLOPS = 989.0  # dense BF16, NVIDIA H100 SXM data sheet
GPU_MEMORY_GB = 64.0  # MareNostrum 5's H100, on which the Mecellem models were trained; the usual H100 has 80
BYTES_PER_LOGIT = 10  # BF16 logits, FP32 softmax and its FP32 gradient

Row = tuple[str, str, str]  # what, how much, where from


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPUs of a run, and the share of their peak that training reaches."""

    gpus: int
    mfu: float
    peak_tflops: float  # of one GPU
    gpu_memory_gb: float  # of one GPU

    def check(self) -> None:
        """Raise `UserError` for numbers that no machine has."""
        if self.gpus < 1:
            raise UserError("--gpus must be at least 1")
        if self.peak_tflops <= 0:
            raise UserError(f"--peak-tflops {self.peak_tflops} must be positive")
        if self.gpu_memory_gb <= 0:
            raise UserError(f"--gpu-memory-gb {self.gpu_memory_gb} must be positive")
        if not 0 < self.mfu <= 1:
            raise UserError(
                f"--mfu {self.mfu} must be above 0 and at most 1: the share of the GPUs' peak that training reaches"
            )

    def seconds(self, flops: float) -> float:
        """Time for so much arithmetic."""
        return flops / (self.gpus * self.peak_tflops * 1e12 * self.mfu)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Trainable weights, as the transformers library counts them: tied matrices once."""

    embedding: int
    layers: int  # matrices of attention and feed-forward
    norms: int
    head: int  # what follows the last norm and is not the embedding

    @property
    def backbone(self) -> int:
        """Without the head: the size that papers on encoders quote."""
        return self.embedding + self.layers + self.norms

    @property
    def total(self) -> int:
        """With the head: what is trained and exported."""
        return self.backbone + self.head

    @property
    def non_embedding(self) -> int:
        """What model cards of decoders call so: without the embedding and the output layer."""
        return self.layers + self.norms


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the GPU that holds most."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it, without CUDA's own and the allocator's share."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def element_bytes(config: RunConfig) -> int:
    """Bytes of a weight or an activation. (FP8 linears keep a weight and its transpose: two bytes, too.)"""
    return 4 if config.precision == "fp32" else 2


def optimizer_bytes(config: RunConfig) -> int:
    """Bytes a weight of optimizer states: AdamW's two moments, and FP32 master weights where the weights are not FP32."""
    return 8 if config.precision == "fp32" else 12


def checkpoint_bytes_per_weight(config: RunConfig) -> int:
    """What a checkpoint holds of each weight: itself, AdamW's two moments and the FP32 master copy, whole on any layout.

    Only FP32 training without the distributed optimizer has no master copy beside the weights. The tokenizer and the
    format's own files come on top, some MB.
    """
    fp32 = config.precision == "fp32"
    return element_bytes(config) + 8 + (4 if config.optimizer.distributed or not fp32 else 0)


def human_count(value: float) -> str:
    """`155.6M`, `112.7B`, `3.2k`: four digits at most."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:.0f}"


def gigabytes(value: float) -> str:
    """`2.2 GB` or `38.0 MB`."""
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(ABC):
    """What a run would take on a machine."""

    config: RunConfig
    machine: Machine
    data_parallel: int
    parameters: Parameters
    steps: int
    tokens: int  # that the run reads: whole steps
    flops: float  # of the whole run
    memory: Memory
    checkpoint_bytes: float

    @property
    def seconds(self) -> float:
        """Time of the arithmetic."""
        return self.machine.seconds(self.flops)

    @property
    def fits(self) -> bool:
        """Whether 90% of a GPU's memory holds the estimate; the rest is CUDA's and the allocator's."""
        return self.memory.total <= 0.9 * self.machine.gpu_memory_gb * 1e9

    @abstractmethod
    def rows(self) -> list[Row]:
        """The lines of the printed table."""


def memory_rows(config: RunConfig, p: Plan, lower: str, logits: str) -> list[Row]:
    """Memory and its parts. `lower`: the flag that makes micro batches smaller; `logits`: of which tokens there are any."""
    memory, shards = p.memory, p.data_parallel * config.parallel.context
    share = f"/ DP {p.data_parallel}" + (f" / CP {config.parallel.context}" if config.parallel.context > 1 else "")
    share = share if config.optimizer.distributed and shards > 1 else "on every rank"
    verdict = "fits" if p.fits else f"DOES NOT FIT: lower {lower} or raise --parallel.tensor"
    return [
        ("memory per GPU", gigabytes(memory.total), f"{verdict} (90% of {p.machine.gpu_memory_gb:.0f} GB)"),
        ("  weights, gradients", gigabytes(memory.weights + memory.gradients), f"{element_bytes(config)} + 4 bytes each"),
        ("  optimizer", gigabytes(memory.optimizer), f"{optimizer_bytes(config)} bytes a weight {share}"),
        ("  activations", gigabytes(memory.activations), "estimate after Korthikanti et al. 2022, no recomputation"),
        ("  logits", gigabytes(memory.logits), f"{logits}, {BYTES_PER_LOGIT} bytes a logit"),
    ]


def time_row(p: Plan) -> Row:
    """How long, how fast, how much."""
    if p.config.fp8.emulate:
        return "time", "not estimated", "FP8 is emulated in torch, slower than BF16: leave --fp8.emulate out for a GPU's time"
    machine, rate = p.machine, p.tokens / p.seconds / p.machine.gpus
    note = (
        f"{machine.gpus} x {machine.peak_tflops:.0f} TFLOP/s at MFU {machine.mfu:.0%}: {human_count(rate)} tokens/s per GPU, "
    )
    return "time", human_time(p.seconds), f"{note}{p.seconds * machine.gpus / 3600:,.0f} GPU hours"


def checkpoint_row(config: RunConfig, p: Plan) -> Row:
    """One checkpoint and all of them."""
    count = -(-p.steps // config.checkpoint_interval)
    return (
        "checkpoint",
        f"about {gigabytes(p.checkpoint_bytes)}",
        f"{checkpoint_bytes_per_weight(config)} bytes a weight: itself, optimizer states in FP32; {count} of them: "
        f"{gigabytes(count * p.checkpoint_bytes)}",
    )
