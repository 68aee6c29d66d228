"""Decoder runs: Qwen3 or Llama, causal language modelling through the stages of a curriculum.

The curriculum (`megatron_recipes/curricula/*.yaml`) says what is learned: sources, lengths, batches and learning rates in
tokens. The run says with which model, from which weights and on which layout.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from megatron_recipes.config.common import ParallelConfig, RunConfig, positive, require

Family = Literal["qwen3", "llama"]
RopeType = Literal["none", "yarn", "llama3"]
OF_ONE_TYPE: dict[str, RopeType] = {  # fields of `RopeScaling` that only one formula has
    "beta_fast": "yarn",
    "beta_slow": "yarn",
    "low_freq_factor": "llama3",
    "high_freq_factor": "llama3",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Positions beyond those of pre-training, by the formulas and names of the transformers library."""

    rope_type: RopeType = "none"  # Qwen3 documents yarn, Llama 3.1 its own
    factor: float = 1.0  # longest context / that of pre-training
    original_max_position_embeddings: int = 0  # positions of pre-training, needed by both: Qwen3 32,768, Llama 3.1 8,192
    beta_fast: float = 32.0  # yarn (Peng et al. 2023, arXiv 2309.00071): rotations below which channels interpolate
    beta_slow: float = 1.0  # yarn
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3

    def check(self) -> None:
        """Raise `UserError` for a scaling that cannot be computed or would do nothing."""
        problem = self.problem()
        if problem:
            name, sentence = problem
            require(False, f"--model.rope-scaling.{name.replace('_', '-')} {sentence}")

    def problem(self, named: Collection[str] = ()) -> tuple[str, str] | None:
        """The first field that is wrong and what to do about it, for a sentence that begins with a flag or a file's key.

        `named`: the fields that a file gives, which must do something even with the value that they have anyway.
        """
        if self.rope_type not in get_args(RopeType):  # `Literal` binds the command line, but no file and no caller
            return "rope_type", f"is {self.rope_type!r}: set yarn, llama3 or none"
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "original_max_position_embeddings":
                if not _is_finite(value) or not isinstance(value, int):
                    return field.name, f"is {value!r}: it must be a whole number"
            elif field.name != "rope_type" and not _is_finite(value):
                return field.name, f"is {value!r}: it must be a finite number"
        if self.rope_type == "none":
            idle = self != RopeScaling() or set(named) - {"rope_type"}
            return ("rope_type", "none uses no other setting: set yarn or llama3") if idle else None
        for name, kind in OF_ONE_TYPE.items():
            if kind != self.rope_type and (name in named or getattr(self, name) != getattr(RopeScaling(), name)):
                return name, f"is a setting of {kind} and does nothing with rope_type {self.rope_type}: remove it"
        if self.factor <= 1.0:
            return "factor", f"is {self.factor:g}: it must be above 1 to do something (for plain RoPE set rope_type to none)"
        if self.original_max_position_embeddings == 0:
            return "original_max_position_embeddings", "is missing: set it to the positions of pre-training (Qwen3: 32768)"
        if self.original_max_position_embeddings < 0:
            return "original_max_position_embeddings", f"is {self.original_max_position_embeddings}: it must be positive"
        if not 0 < self.beta_slow < self.beta_fast:
            return "beta_slow", f"is {self.beta_slow:g}: it must be positive and below beta_fast, {self.beta_fast:g}"
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            limit = f"{self.high_freq_factor:g}"
            return "low_freq_factor", f"is {self.low_freq_factor:g}: it must be positive and below high_freq_factor, {limit}"
        return None


def _is_finite(value: Any) -> bool:
    """Whether it is a real number that a float can hold; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A pre-norm decoder with RMSNorm, SwiGLU, RoPE and grouped-query attention, without biases.

    `qwen3` (Yang et al. 2025, arXiv 2505.09388) has an RMSNorm on each head's query and key, `llama` has none.
    """

    family: Family
    num_layers: int
    hidden_size: int
    ffn_hidden_size: int  # half-width of the SwiGLU: linear_fc1 has 2 x this many rows
    num_attention_heads: int
    num_query_groups: int  # heads of keys and values
    head_dim: int  # channels per head; Qwen3's is not hidden_size / num_attention_heads
    vocab_size: int  # rows of the embedding; a tokenizer may have fewer entries (Qwen3: 151,669 of 151,936)
    max_sequence_length: int  # positions the exported model declares
    rope_theta: float
    rope_scaling: RopeScaling = RopeScaling()
    norm_epsilon: float = 1e-6  # Qwen3; recipes of other families set their own
    tie_embeddings: bool = True  # Qwen3 up to 4B and SmolLM2
    init_std: float = 0.02  # transformers' initializer_range for both families; for runs from scratch

    def check(self) -> None:
        """Raise `UserError` for a shape that cannot be built."""
        names = (
            *("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "head_dim"),
            *("vocab_size", "max_sequence_length", "norm_epsilon", "init_std"),
        )
        positive({name: getattr(self, name) for name in names}, "model")
        require(
            self.num_attention_heads % self.num_query_groups == 0,
            f"--model.num-attention-heads {self.num_attention_heads} does not divide by --model.num-query-groups "
            f"{self.num_query_groups}",
        )
        require(self.head_dim % 2 == 0, f"RoPE needs an even head width: change --model.head-dim {self.head_dim}")
        # its logarithm divides in YaRN, and at 1 all channels would turn alike
        require(_is_finite(self.rope_theta) and self.rope_theta > 1, "--model.rope-theta must be a finite number above 1")
        self.rope_scaling.check()

    def check_layout(self, parallel: ParallelConfig) -> None:
        """Raise `UserError` for a layout that this model's shape does not allow."""
        parallel.check(self.num_layers, self.num_attention_heads, self.ffn_hidden_size)
        ranks, groups = parallel.tensor, self.num_query_groups
        require(
            groups % ranks == 0 or ranks % groups == 0,
            f"{groups} query groups and --parallel.tensor {ranks}: one must divide by the other, so that each rank has whole "
            "groups, or each group the same number of ranks",
        )
        rows = (self.num_attention_heads + 2 * groups) * self.head_dim
        require(
            rows % ranks == 0,
            f"the {rows:,} rows of queries, keys and values do not divide by --parallel.tensor {ranks}: lower it",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalDataConfig:
    """The tokenizer of every source of the curriculum, and what validation passes read."""

    tokenizer: Path  # Hugging Face tokenizer folder
    validation: Path  # prefix of <prefix>.bin, <prefix>.idx, <prefix>.manifest.json
    validation_sequences: int = 256  # packed sequences of the stage's length per validation pass; fewer in a smaller split

    def check(self) -> None:
        """Raise `UserError` for numbers that cannot work."""
        require(self.validation_sequences > 0, "--data.validation-sequences must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderRun(RunConfig):
    """One continual pre-training run of a decoder."""

    model: DecoderConfig
    data: CausalDataConfig
    curriculum: Path  # YAML file of stages
    micro_batch_tokens: int  # tokens of one forward pass of a model replica: sequences = this / the stage's seq_len

    def check(self, world_size: int) -> None:
        """Raise `UserError` for whatever cannot run on `world_size` ranks, before any work starts.

        What depends on the curriculum's stages is checked with the curriculum (`engine.refusals.refuse_stages`).
        """
        self.check_common()
        self.model.check()
        self.model.check_layout(self.parallel)
        self.data.check()
        require(self.micro_batch_tokens > 0, "--micro-batch-tokens must be positive")
        self.parallel.data_parallel(world_size)
