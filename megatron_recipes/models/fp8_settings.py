"""From a run's precision to Megatron-Core's FP8 settings; combinations that cannot run are refused with the reason.

| precision     | scaling                                                     | formats                          |
|---------------|-------------------------------------------------------------|----------------------------------|
| `fp8_hybrid`  | delayed: per tensor, from the largest values of past passes | E4M3 forward, E5M2 for gradients |
| `fp8_current` | current: per tensor, from the tensor itself                 | E4M3 forward, E5M2 for gradients |
| `fp8_block`   | per 1 x 128 values, per 128 x 128 of weights; powers of two | E4M3 everywhere                  |

Delayed scaling's history of 1024 and the formats of `fp8_block` are Transformer Engine's defaults (the latter are
DeepSeek-V3's, arXiv 2412.19437). This module imports neither torch nor Megatron-Core, so a launcher can check with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megatron_recipes.config import EncoderRun, Fp8Config, RunConfig, require

AMAX_HISTORY = 1024

FP8_SETTINGS: dict[str, dict[str, Any]] = {
    "fp8_hybrid": {
        "fp8": "hybrid",
        "fp8_recipe": "delayed",
        "fp8_amax_history_len": AMAX_HISTORY,
        "fp8_amax_compute_algo": "max",
    },
    "fp8_current": {"fp8": "hybrid", "fp8_recipe": "tensorwise"},
    "fp8_block": {"fp8": "e4m3", "fp8_recipe": "blockwise"},
}

# The first Transformer Engine release whose recipe Megatron-Core takes (megatron.core.fp8_utils.get_fp8_recipe).
OLDEST_TRANSFORMER_ENGINE = {"fp8_hybrid": (2, 0), "fp8_current": (2, 2), "fp8_block": (2, 3)}
# Transformer Engine's FP8 matrix products (assert_dim_for_fp8_exec): what a linear's widths and a rank's tokens divide by.
WIDTH_MULTIPLE = 16
TOKENS_MULTIPLE = 8


def fp8_settings(precision: str, fp8: Fp8Config) -> dict[str, Any] | None:
    """The fp8 fields of Megatron-Core's `TransformerConfig`, the same for real and emulated FP8; None without FP8."""
    if precision not in FP8_SETTINGS:
        return None
    return {
        **FP8_SETTINGS[precision],
        "first_last_layers_bf16": keeps_first_and_last(precision, fp8),
        "fp8_param": fp8.param_gather,
    }


def keeps_first_and_last(precision: str, fp8: Fp8Config) -> bool:
    """Whether the first and the last layer stay in BF16."""
    return precision != "fp8_hybrid" if fp8.first_last_layers_bf16 is None else fp8.first_last_layers_bf16


def refuse_fp8(config: RunConfig) -> None:
    """Raise `UserError` for FP8 settings that Megatron-Core or Transformer Engine would refuse later, or ignore."""
    if config.precision not in FP8_SETTINGS:
        return
    precision, fp8 = config.precision, config.fp8
    require(
        precision != "fp8_hybrid" or not fp8.first_last_layers_bf16,
        "--precision fp8_hybrid scales by the largest values of past passes, and Megatron-Core does not do that with some "
        "layers in BF16: leave --fp8.first-last-layers-bf16 out, or use --precision fp8_current",
    )
    require(
        not keeps_first_and_last(precision, fp8) or config.model.num_layers > 2,
        f"the first and the last layer stay in BF16, which leaves none of the {config.model.num_layers} layers for --precision "
        f"{precision}: set --fp8.first-last-layers-bf16 False, or use --precision bf16",
    )
    require(
        not fp8.param_gather or config.optimizer.distributed,
        "--fp8.param-gather gathers weights from the distributed optimizer: remove --optimizer.no-distributed",
    )
    if fp8.emulate:
        return  # torch multiplies matrices of any width
    for setting, width in linear_widths(config.model, config.parallel.tensor).items():
        require(
            width % WIDTH_MULTIPLE == 0,
            f"{setting} gives each rank a linear of width {width}, and --precision {precision} needs multiples of "
            f"{WIDTH_MULTIPLE}: lower --parallel.tensor, change the width, or use --precision bf16",
        )


def refuse_fp8_tokens(precision: str, fp8: Fp8Config, tokens: int, setting: str) -> None:
    """Raise `UserError` for a number of tokens per rank and forward pass (from `setting`) that FP8 linears refuse."""
    if precision not in FP8_SETTINGS or fp8.emulate:
        return
    require(
        tokens % TOKENS_MULTIPLE == 0,
        f"{setting} gives each rank {tokens} tokens in a forward pass, and --precision {precision} needs multiples of "
        f"{TOKENS_MULTIPLE}: change it, or use --precision bf16",
    )


def refuse_fp8_micro_batch(config: EncoderRun) -> None:
    """The same for an encoder's micro batch. (A decoder's differ from stage to stage: `engine.refusals.refuse_stages`.)"""
    tokens = config.schedule.micro_batch_size * config.data.sequence_length
    tokens //= config.parallel.tensor if config.parallel.sequence else 1
    refuse_fp8_tokens(config.precision, config.fp8, tokens, "--schedule.micro-batch-size x --data.sequence-length")


def linear_widths(model: Any, tensor: int) -> dict[str, int]:
    """Each width that a rank's linears have, by the setting that gives it. For encoders and decoders."""
    heads = model.num_attention_heads
    channels = getattr(model, "head_dim", model.hidden_size // heads)
    groups = getattr(model, "num_query_groups", heads)
    return {
        "--model.hidden-size": model.hidden_size,
        "--model.ffn-hidden-size": model.ffn_hidden_size // tensor,
        "--model.num-attention-heads": heads * channels // tensor,
        "--model.num-query-groups": (heads + 2 * groups) * channels // tensor,
    }


@dataclass(frozen=True, slots=True)
class Fp8Machine:
    """What FP8 depends on: compute capability of the GPU, CUDA of torch, Transformer Engine (None: not installed)."""

    capability: tuple[int, int]
    cuda: tuple[int, int]
    transformer_engine: tuple[int, int] | None


def refuse_fp8_machine(precision: str, machine: Fp8Machine) -> None:
    """Raise `UserError` where this GPU or its libraries have no FP8 of this kind (emulated FP8 runs anywhere)."""
    block = precision == "fp8_block"
    capability = (9, 0) if block else (8, 9)
    require(
        machine.capability >= capability,
        f"--precision {precision} needs a GPU of compute capability {capability[0]}.{capability[1]} "
        f"({'Hopper' if block else 'Ada, Hopper'} or newer), and this one has "
        f"{machine.capability[0]}.{machine.capability[1]}: use --precision bf16",
    )
    require(
        not block or machine.cuda >= (12, 9),
        f"--precision fp8_block needs CUDA 12.9 or newer, and torch was built for {machine.cuda[0]}.{machine.cuda[1]}: use "
        "--precision fp8_current, or install a newer torch",
    )
    oldest = OLDEST_TRANSFORMER_ENGINE[precision]
    found = machine.transformer_engine
    require(
        found is not None and found >= oldest,
        f"--precision {precision} needs Transformer Engine {oldest[0]}.{oldest[1]} or newer, and "
        f"{'there is none' if found is None else f'{found[0]}.{found[1]} is installed'}: install it, or use --precision bf16",
    )
