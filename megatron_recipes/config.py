"""`RunConfig`: everything that defines a training run, as frozen dataclasses without a line of torch.

Every field can be overridden on the command line (`mecellem train mursit_base --optimizer.lr 5e-4`); unknown names are
errors. Checks raise `UserError` with the flag to set. Sizes are in tokens, never in iterations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mecellem.errors import UserError

Precision = Literal["fp32", "bf16", "fp8_hybrid"]
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
class ModelConfig:
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


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the tokens are and how they are packed and masked."""

    tokenizer: Path  # Hugging Face tokenizer folder
    train: Path  # prefix of <prefix>.bin, <prefix>.idx, <prefix>.manifest.json
    validation: Path  # the same, for the validation split
    sequence_length: int  # tokens of one packed sequence
    mask_probability: float = 0.30  # paper 1, section on pre-training: 30% in training
    validation_mask_probability: float = 0.15  # paper 1: evaluated at 15%
    validation_sequences: int = 256  # packed sequences per validation pass; fewer when the split is smaller

    def check(self, model: ModelConfig) -> None:
        """Raise `UserError` for lengths and probabilities that cannot work."""
        require(self.sequence_length >= 8, "--data.sequence-length must be at least 8")
        require(
            self.sequence_length <= model.max_sequence_length,
            f"--data.sequence-length {self.sequence_length} exceeds --model.max-sequence-length {model.max_sequence_length}",
        )
        for name in ("mask_probability", "validation_mask_probability"):
            require(0.0 < getattr(self, name) < 1.0, f"--data.{name.replace('_', '-')} must be between 0 and 1")
        require(self.validation_sequences > 0, "--data.validation-sequences must be positive")


@dataclass(frozen=True, slots=True)
class ParallelConfig:
    """How the model is spread over ranks; data parallel is what is left of the world."""

    tensor: int = 1  # TP: each layer's matrices over this many ranks
    pipeline: int = 1  # PP: layers over this many ranks
    sequence: bool = False  # SP: activations between TP regions split along the sequence

    def data_parallel(self, world_size: int) -> int:
        """Ranks per model replica divided out of `world_size`; `UserError` when it does not divide."""
        per_replica = self.tensor * self.pipeline
        require(
            world_size % per_replica == 0,
            f"{world_size} ranks do not divide by --parallel.tensor {self.tensor} x --parallel.pipeline "
            f"{self.pipeline}: start a multiple of {per_replica} (--nproc)",
        )
        return world_size // per_replica

    def check(self, model: ModelConfig, sequence_length: int) -> None:
        """Raise `UserError` for a layout that the model's shape does not allow."""
        require(self.tensor >= 1 and self.pipeline >= 1, "--parallel.tensor and --parallel.pipeline must be at least 1")
        require(
            model.num_attention_heads % self.tensor == 0,
            f"{model.num_attention_heads} attention heads do not divide by --parallel.tensor {self.tensor}",
        )
        require(
            model.ffn_hidden_size % self.tensor == 0,
            f"--model.ffn-hidden-size {model.ffn_hidden_size} does not divide by --parallel.tensor {self.tensor}",
        )
        require(
            model.num_layers % self.pipeline == 0,
            f"{model.num_layers} layers do not divide by --parallel.pipeline {self.pipeline}",
        )
        require(
            not self.sequence or self.tensor > 1,
            "--parallel.sequence splits activations over tensor-parallel ranks: set --parallel.tensor 2 or more",
        )
        require(
            not self.sequence or sequence_length % self.tensor == 0,
            f"--data.sequence-length {sequence_length} does not divide by --parallel.tensor {self.tensor}, "
            "which --parallel.sequence needs",
        )


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """AdamW with decoupled weight decay; norms and biases are not decayed."""

    lr: float
    beta1: float = 0.9  # TabiBERT and Ettin (paper 1 does not publish its own)
    beta2: float = 0.98  # TabiBERT and Ettin
    epsilon: float = 1e-6  # TabiBERT and Ettin
    weight_decay: float = 1e-5  # TabiBERT and Ettin
    clip_grad: float = 1.0  # Megatron-LM's default; 0 turns clipping off
    distributed: bool = True  # shard optimizer states over data-parallel ranks

    def check(self) -> None:
        """Raise `UserError` for values outside their range."""
        require(self.lr > 0, "--optimizer.lr must be positive")
        require(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "--optimizer.beta1 and --optimizer.beta2 must be in [0, 1)")
        require(self.epsilon > 0, "--optimizer.epsilon must be positive")
        require(self.weight_decay >= 0, "--optimizer.weight-decay must not be negative")
        require(self.clip_grad >= 0, "--optimizer.clip-grad must not be negative (0 turns clipping off)")


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """Warm-up, stable, decay (WSD): linear up, constant, then 1 - sqrt down to `min_lr_ratio` x lr."""

    train_tokens: int  # length of the run; the last step may pass it by less than a batch
    warmup_tokens: int
    decay_tokens: int
    global_batch_size: int  # packed sequences per optimizer step, over all ranks
    micro_batch_size: int  # packed sequences per forward pass of one model replica
    min_lr_ratio: float = 0.001  # TabiBERT's decay stage ends at 0.001 x lr

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


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One run. `recipe()` functions return it, the command line overrides it, `run.yaml` records it."""

    name: str
    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    parallel: ParallelConfig = ParallelConfig()
    precision: Precision = "bf16"  # paper 1 trains in BF16 mixed precision
    layer_spec: LayerSpec = "auto"  # transformer_engine on CUDA where it is installed and not for fp32, else local
    seed: int = 1234  # weights, document order, masks (Megatron-LM's default)
    validation_interval: int = 100  # steps between validation passes
    checkpoint_interval: int = 100  # steps between checkpoints; the last step always has one
    log_interval: int = 1  # steps between lines of metrics.jsonl

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
        self.model.check()
        self.data.check(self.model)
        self.optimizer.check()
        self.parallel.check(self.model, self.data.sequence_length)
        self.schedule.check(self.parallel.data_parallel(world_size))
        total = self.steps * self.tokens_per_step
        require(
            self.schedule.warmup_tokens < total,
            f"--schedule.warmup-tokens {self.schedule.warmup_tokens:,} must be fewer than the {total:,} tokens of the run's "
            f"{self.steps:,} steps: the learning rate would only rise",
        )
        for name in ("validation_interval", "checkpoint_interval", "log_interval"):
            require(getattr(self, name) > 0, f"--{name.replace('_', '-')} must be positive")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """`{"optimizer.lr": 0.0008, ...}`: every leaf of nested dataclasses under its dotted name."""
    leaves: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            leaves.update(flatten(value, f"{prefix}{field.name}."))
        else:
            leaves[prefix + field.name] = value
    return leaves


def field_defaults(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted names of the leaves that have a default in their dataclass, with that default."""
    defaults: dict[str, Any] = {}
    nested = {"model": ModelConfig, "data": DataConfig, "optimizer": OptimizerConfig, "schedule": ScheduleConfig}
    nested["parallel"] = ParallelConfig
    for field in dataclasses.fields(cls):
        if field.name in nested and cls is RunConfig:
            defaults.update(field_defaults(nested[field.name], f"{field.name}."))
        elif field.default is not dataclasses.MISSING:
            defaults[prefix + field.name] = field.default
    return defaults


def named_in(argv: Sequence[str], config: RunConfig) -> set[str]:
    """Dotted names of the values that a command line sets: `--a.b-c 1`, `--a.b-c=1`, `--a.flag` and `--a.no-flag`."""
    known, found = flatten(config), set[str]()
    for word in argv:
        if word.startswith("--"):
            *parents, leaf = word.removeprefix("--").partition("=")[0].replace("-", "_").split(".")
            names = (".".join([*parents, name]) for name in (leaf, leaf.removeprefix("no_")))
            found.update(name for name in names if name in known)
    return found


def origins(config: RunConfig, recipe_name: str, command_line: Collection[str]) -> dict[str, str]:
    """Where each value came from: `command line`, `recipe NAME` or `default`.

    `command_line`: the dotted names that were given there (`named_in`), also with the value they have anyway. "default"
    means equal to the dataclass's default: a recipe that spells such a value out is not told apart.
    """
    given, defaults = flatten(config), field_defaults(RunConfig)
    result = {}
    for name, value in given.items():
        if name in command_line:
            result[name] = "command line"
        elif name in defaults and defaults[name] == value:
            result[name] = "default"
        else:
            result[name] = f"recipe {recipe_name}"
    return result
