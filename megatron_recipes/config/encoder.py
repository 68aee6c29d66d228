"""Encoder runs: a ModernBERT, masked language modelling over one corpus, a warm-up-stable-decay schedule.

Every field can be overridden on the command line (`mecellem train mursit_base --optimizer.lr 5e-4`); unknown names are
errors. Checks raise `UserError` with the flag to set. Sizes are in tokens, never in iterations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from megatron_recipes.config.common import AdamConfig, ParallelConfig, RunConfig, require


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """A ModernBERT (Warner et al. 2024, arXiv 2412.13663): pre-norm encoder, GeGLU, RoPE, local/global attention."""

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int  # half-width of the GeGLU: linear_fc1 has 2 x this many rows
    num_attention_heads: int
    vocab_size: int  # entries of the tokenizer; Megatron pads it to a multiple of 128 x TP
    max_sequence_length: int  # positions the exported model declares
    local_attention: int = 128  # window of the local layers: 64 tokens on each side (Mursit's config.json)
    global_attention_every: int = 3  # layers 0, 3, 6, ... see the whole document (ModernBERT's default)
    local_rope_theta: float = 10_000.0  # ModernBERT's default
    global_rope_theta: float = 10_000.0  # Mursit-Base's config.json; recipes set their own
    norm_epsilon: float = 1e-5  # LayerNorm without bias (ModernBERT, Ettin, TabiBERT)
    init_std: float = 0.02  # truncated at 2 std, output projections scaled by 1/sqrt(2 x layers) (ModernBERT)
    hidden_dropout: float = 0.0  # transformers' ModernBertConfig default
    attention_dropout: float = 0.0  # transformers' ModernBertConfig default

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.hidden_size // self.num_attention_heads

    def is_global(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) attends to the whole document; the others see `local_attention` tokens."""
        return layer % self.global_attention_every == 0

    def check(self) -> None:
        """Raise `UserError` for a shape that cannot be built."""
        for name in (
            *("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "vocab_size"),
            *("local_rope_theta", "global_rope_theta", "norm_epsilon", "init_std"),
        ):
            require(getattr(self, name) > 0, f"--model.{name.replace('_', '-')} must be positive")
        require(
            self.hidden_size % self.num_attention_heads == 0,
            f"--model.hidden-size {self.hidden_size} does not divide by --model.num-attention-heads {self.num_attention_heads}",
        )
        require(self.head_dim % 2 == 0, f"RoPE needs an even head width, not {self.head_dim}: change --model.hidden-size")
        require(
            self.local_attention >= 2 and self.local_attention % 2 == 0,
            "--model.local-attention must be an even number of tokens",
        )
        require(self.global_attention_every >= 1, "--model.global-attention-every must be at least 1")
        for name in ("hidden_dropout", "attention_dropout"):
            require(0.0 <= getattr(self, name) < 1.0, f"--model.{name.replace('_', '-')} must be in [0, 1)")

    def check_layout(self, parallel: ParallelConfig) -> None:
        """Raise `UserError` for a layout that this model's shape does not allow."""
        parallel.check(self.num_layers, self.num_attention_heads, self.ffn_hidden_size)
        require(parallel.context == 1, "--parallel.context is for decoders: masked language models attend to both sides")


@dataclass(frozen=True, slots=True)
class MlmDataConfig:
    """Where the tokens are and how they are packed and masked."""

    tokenizer: Path  # Hugging Face tokenizer folder
    train: Path  # prefix of <prefix>.bin, <prefix>.idx, <prefix>.manifest.json
    validation: Path  # the same, for the validation split
    sequence_length: int  # tokens of one packed sequence
    mask_probability: float = 0.30  # paper 1, section on pre-training: 30% in training
    validation_mask_probability: float = 0.15  # paper 1: evaluated at 15%
    validation_sequences: int = 256  # packed sequences per validation pass; fewer when the split is smaller

    def check(self, model: EncoderConfig) -> None:
        """Raise `UserError` for lengths and probabilities that cannot work."""
        require(self.sequence_length >= 8, "--data.sequence-length must be at least 8")
        require(
            self.sequence_length <= model.max_sequence_length,
            f"--data.sequence-length {self.sequence_length} exceeds --model.max-sequence-length {model.max_sequence_length}",
        )
        for name in ("mask_probability", "validation_mask_probability"):
            require(0.0 < getattr(self, name) < 1.0, f"--data.{name.replace('_', '-')} must be between 0 and 1")
        require(self.validation_sequences > 0, "--data.validation-sequences must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig(AdamConfig):
    """AdamW with its peak learning rate, which the schedule scales."""

    lr: float

    def check(self) -> None:
        """Raise `UserError` for values outside their range."""
        AdamConfig.check(self)
        require(self.lr > 0, "--optimizer.lr must be positive")


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """Warm-up, stable, decay (WSD): linear up, constant, then 1 - sqrt down to `min_lr_ratio` x lr."""

    train_tokens: int  # length of the run; the last step may pass it by less than a batch
    warmup_tokens: int
    decay_tokens: int
    global_batch_size: int  # packed sequences per optimizer step, over all ranks
    micro_batch_size: int  # packed sequences per forward pass of one model replica
    min_lr_ratio: float = 0.001  # TabiBERT's decay stage ends at 0.001 x lr

    def learning_rate(self, tokens: int, peak: float, total: int) -> float:
        """The rate after `tokens` of a run of `total`: linear up, constant, 1 - sqrt down that ends with the last token."""
        if tokens <= self.warmup_tokens:
            return peak * tokens / self.warmup_tokens if self.warmup_tokens else peak
        last, into_decay = peak * self.min_lr_ratio, tokens - (total - self.decay_tokens)
        if into_decay <= 0:
            return peak
        return last + (peak - last) * (1.0 - math.sqrt(into_decay / self.decay_tokens))

    def check(self, data_parallel: int) -> None:
        """Raise `UserError` for budgets and batches that do not fit together."""
        for name in ("train_tokens", "global_batch_size", "micro_batch_size"):
            require(getattr(self, name) > 0, f"--schedule.{name.replace('_', '-')} must be positive")
        require(
            self.warmup_tokens >= 0 and self.decay_tokens >= 0,
            "--schedule.warmup-tokens and --schedule.decay-tokens must not be negative",
        )
        require(
            self.warmup_tokens + self.decay_tokens <= self.train_tokens,
            f"--schedule.warmup-tokens {self.warmup_tokens:,} + --schedule.decay-tokens {self.decay_tokens:,} exceed "
            f"--schedule.train-tokens {self.train_tokens:,}",
        )
        require(0.0 <= self.min_lr_ratio <= 1.0, "--schedule.min-lr-ratio must be in [0, 1]")
        per_pass = self.micro_batch_size * data_parallel
        require(
            self.global_batch_size % per_pass == 0,
            f"--schedule.global-batch-size {self.global_batch_size} does not divide by --schedule.micro-batch-size "
            f"{self.micro_batch_size} x {data_parallel} data-parallel ranks",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRun(RunConfig):
    """One pre-training run of an encoder."""

    model: EncoderConfig
    data: MlmDataConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.schedule.global_batch_size * self.data.sequence_length

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run: the token budget, rounded up to whole steps."""
        return -(-self.schedule.train_tokens // self.tokens_per_step)

    def check(self, world_size: int) -> None:
        """Raise `UserError` for whatever cannot run on `world_size` ranks, before any work starts."""
        self.check_common()
        self.model.check()
        self.data.check(self.model)
        self.model.check_layout(self.parallel)
        require(
            not self.fp8.emulate,
            "--fp8.emulate is for decoders: encoders train in FP8 with Transformer Engine only",
        )
        self.parallel.check_length(self.data.sequence_length, "--data.sequence-length")
        self.schedule.check(self.parallel.data_parallel(world_size))
        total = self.steps * self.tokens_per_step
        require(
            self.schedule.warmup_tokens < total,
            f"--schedule.warmup-tokens {self.schedule.warmup_tokens:,} must be fewer than the {total:,} tokens of the run's "
            f"{self.steps:,} steps: the learning rate would only rise",
        )
