"""FP8 linears emulated in torch: they show what FP8 does to the numbers, on any machine. They are slower than BF16.

Inputs, weights and output gradients are scaled, rounded to FP8 (`torch.float8_e4m3fn`, `torch.float8_e5m2`) and scaled
back; their products are summed in fp32, as a Hopper's FP8 units do with fp32 accumulation. Scales follow Transformer
Engine's recipes (delayed, current and block scaling; see `models.fp8_settings`), with these differences:

- An amax of a tensor that is split over tensor or context parallel ranks is always taken over all of them, so that every
  layout computes the same numbers. Transformer Engine does that for delayed scaling and for tensors that it gathers; with
  current scaling it gives each shard of the others a scale of its own, which is never coarser.
- Weights are rounded anew in each micro batch. Transformer Engine rounds them once a step; with delayed scaling, the
  second micro batch of a step may see a newer scale here.

Embeddings, norms, attention and the output layer stay in the run's own type, as with Transformer Engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.fp8_utils import is_first_last_bf16_layer
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
GRADIENT_FORMATS = {"hybrid": E5M2, "e4m3": E4M3}  # by Megatron-Core's `fp8`; everything else is E4M3
BLOCK = 128
LARGEST_FLOAT = torch.finfo(torch.float32).max
INPUT, WEIGHT, GRADIENT = 0, 1, 2  # rows of delayed scaling's state
STATE = "fp8_scaling"  # the part of a linear's state-dict names that only emulated delayed scaling has


@dataclass(frozen=True, slots=True)
class Fp8Tensor:
    """Numbers in FP8 and the factor, `inverse`, that gives them back: a scalar or of a shape that broadcasts."""

    values: torch.Tensor
    inverse: torch.Tensor

    def dequantise(self) -> torch.Tensor:
        """The numbers in fp32."""
        return self.values.float() * self.inverse


def scale_of(amax: torch.Tensor, dtype: torch.dtype, power_of_two: bool = False) -> torch.Tensor:
    """The fp32 factor that brings `amax` to the largest number of `dtype`; 1 where `amax` is 0, infinite or NaN.

    `power_of_two` rounds it down to one, so that scaling itself rounds nothing.
    """
    amax = amax.float()
    scale = (torch.finfo(dtype).max / amax).clamp(max=LARGEST_FLOAT)
    if power_of_two:
        _, exponent = torch.frexp(scale)
        scale = torch.ldexp(torch.ones_like(scale), exponent - 1)
    return torch.where(torch.isfinite(amax) & (amax > 0), scale, 1.0)


def quantise(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> Fp8Tensor:
    """`x * scale` rounded to nearest even in `dtype`. What is too large becomes the largest number, NaN stays NaN."""
    largest = torch.finfo(dtype).max
    return Fp8Tensor((x.float() * scale).clamp(-largest, largest).to(dtype), scale.reciprocal())


def largest_of(*tensors: torch.Tensor) -> torch.Tensor:
    """`[n]`: the largest absolute value of each tensor in fp32, 0 for a tensor of no elements."""
    return torch.stack([x.abs().amax().float() if x.numel() else torch.zeros((), device=x.device) for x in tensors])


def over_ranks(amax: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The largest amax over the ranks of `group`; infinity for a tensor with a NaN, which gloo's maximum would drop."""
    amax = amax.nan_to_num(nan=float("inf"), posinf=float("inf"))
    if dist.get_world_size(group) > 1:
        dist.all_reduce(amax, op=dist.ReduceOp.MAX, group=group)
    return amax


def block_amax(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Largest absolute value in every `rows` x `columns` block of `x` `[n, k]`, repeated to the shape of `x`.

    The last blocks of a side that does not divide are smaller.
    """
    n, k = x.shape
    padded = torch.nn.functional.pad(x.abs().float(), (0, -k % columns, 0, -n % rows))
    blocks = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns).amax(dim=(1, 3))
    return blocks.repeat_interleave(rows, 0)[:n].repeat_interleave(columns, 1)[:, :k]


class CurrentScaling(torch.nn.Module):
    """One scale for each tensor, from that tensor itself (Megatron-Core's "tensorwise")."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gradient_format = GRADIENT_FORMATS[config.fp8]

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[Fp8Tensor, Fp8Tensor, Fp8Tensor]:
        """`x` `[n, k]` and `weight` `[m, k]` for the output, and `x` once more for the weight's gradient."""
        scales = scale_of(over_ranks(largest_of(x, weight), self.group()), E4M3)
        rounded = quantise(x, scales[INPUT], E4M3)
        return rounded, quantise(weight, scales[WEIGHT], E4M3), rounded

    def backward(self, gradient: torch.Tensor) -> tuple[Fp8Tensor, Fp8Tensor]:
        """The output's gradient `[n, m]`, for the input's gradient and for the weight's."""
        scale = scale_of(over_ranks(largest_of(gradient), self.group()), self.gradient_format)
        rounded = quantise(gradient, scale[0], self.gradient_format)
        return rounded, rounded

    @staticmethod
    def group() -> dist.ProcessGroup:
        """The ranks that hold parts of one tensor: those of tensor and of context parallel."""
        return parallel_state.get_amax_reduction_group(with_context_parallel=True, tp_only_amax_red=True)


class DelayedScaling(torch.nn.Module):
    """One scale for each tensor, from the largest values of past training passes; 1 before the first.

    The state belongs to the model's: `amax_history` `[3, history]` (newest first) and `scale` `[3]`, of input, weight and
    output gradient, in fp32 and equal on all ranks that hold parts of the layer. A pass rounds with the scale that it
    finds and then takes part in the next one's, as in Transformer Engine: forward by forward, backward by backward.
    """

    amax_history: torch.Tensor
    scale: torch.Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.formats = (E4M3, E4M3, GRADIENT_FORMATS[config.fp8])
        self.margin = config.fp8_margin
        self.longest = config.fp8_amax_compute_algo == "max"
        self.tp_only = config.tp_only_amax_red
        self.register_buffer("amax_history", torch.zeros(3, config.fp8_amax_history_len))
        self.register_buffer("scale", torch.ones(3))
        # weights that were trained without FP8 (`without_fp8_state`) leave a new model's state as it is
        self._register_load_state_dict_pre_hook(
            lambda state, prefix, *unused: [state.setdefault(prefix + name, value) for name, value in self.named_buffers()]
        )

    def _apply(self, function: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> DelayedScaling:
        """Follows the model to a device, not to BF16."""
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(function, recurse)
        for name, buffer in kept.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != torch.float32:
                self._buffers[name] = buffer.to(moved.device)
        return self

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[Fp8Tensor, Fp8Tensor, Fp8Tensor]:
        """As `CurrentScaling.forward`."""
        rounded = quantise(x, self.scale[INPUT], E4M3), quantise(weight, self.scale[WEIGHT], E4M3)
        if self.training and torch.is_grad_enabled():
            self.remember(INPUT, largest_of(x, weight))
        return *rounded, rounded[0]

    def backward(self, gradient: torch.Tensor) -> tuple[Fp8Tensor, Fp8Tensor]:
        """As `CurrentScaling.backward`."""
        rounded = quantise(gradient, self.scale[GRADIENT], self.formats[GRADIENT])
        self.remember(GRADIENT, largest_of(gradient))
        return rounded, rounded

    @torch.no_grad()
    def remember(self, first: int, amax: torch.Tensor) -> None:
        """Put `amax` `[n]` of the tensors from `first` on into the history and set their scales for the next pass."""
        group = parallel_state.get_amax_reduction_group(with_context_parallel=True, tp_only_amax_red=self.tp_only)
        amax = over_ranks(amax, group)
        for row, newest in enumerate(amax, start=first):
            history = torch.cat([newest[None], self.amax_history[row, :-1]])
            self.amax_history[row] = history
            reference = history.max() if self.longest else newest
            if torch.isfinite(reference) and reference > 0:
                self.scale[row] = scale_of(reference, self.formats[row]) / 2.0**self.margin


class BlockScaling(torch.nn.Module):
    """One power-of-two scale for each 128 numbers in a row, and for each 128 x 128 of a weight.

    What a product sums over is what blocks lie along: features for the output and the input's gradient, tokens for the
    weight's gradient, so input and output gradient are rounded twice. (DeepSeek-V3, arXiv 2412.19437, section 3.3.)
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gradient_format = GRADIENT_FORMATS[config.fp8]

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[Fp8Tensor, Fp8Tensor, Fp8Tensor]:
        """As `CurrentScaling.forward`."""
        return self.blocks(x, 1, BLOCK, E4M3), self.blocks(weight, BLOCK, BLOCK, E4M3), self.blocks(x, BLOCK, 1, E4M3)

    def backward(self, gradient: torch.Tensor) -> tuple[Fp8Tensor, Fp8Tensor]:
        """As `CurrentScaling.backward`."""
        form = self.gradient_format
        return self.blocks(gradient, 1, BLOCK, form), self.blocks(gradient, BLOCK, 1, form)

    @staticmethod
    def blocks(x: torch.Tensor, rows: int, columns: int, dtype: torch.dtype) -> Fp8Tensor:
        """`x` in FP8, scaled block by block."""
        return quantise(x, scale_of(block_amax(x, rows, columns), dtype, power_of_two=True), dtype)


Scaling = CurrentScaling | DelayedScaling | BlockScaling
SCALINGS: dict[str, type[Scaling]] = {"tensorwise": CurrentScaling, "delayed": DelayedScaling, "blockwise": BlockScaling}


class _EmulatedProduct(torch.autograd.Function):
    """`x` `[..., k]` times `weight` `[m, k]` transposed, all three products of a linear from numbers rounded to FP8."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, rounded: tuple[Fp8Tensor, Fp8Tensor, Fp8Tensor], scaling: Scaling
    ) -> torch.Tensor:
        for_output, rounded_weight, for_weight = rounded
        ctx.scaling, ctx.weight, ctx.x = scaling, rounded_weight, for_weight
        ctx.shape, ctx.dtypes = x.shape, (x.dtype, weight.dtype)
        output = for_output.dequantise() @ rounded_weight.dequantise().t()
        return output.to(x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        for_input, for_weight = ctx.scaling.backward(gradient)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = (for_input.dequantise() @ ctx.weight.dequantise()).to(ctx.dtypes[0]).view(ctx.shape)
        if ctx.needs_input_grad[1]:
            of_weight = (for_weight.dequantise().t() @ ctx.x.dequantise()).to(ctx.dtypes[1])
        return of_x, of_weight, None, None


class _EmulatedFp8(torch.nn.Module):
    """What both linears share: the scaling, and the product in place of Megatron-Core's."""

    def __init__(self, *args: Any, config: TransformerConfig, **keywords: Any) -> None:
        super().__init__(*args, config=config, **keywords)
        assert config.fp8 in GRADIENT_FORMATS, "emulated linears need Megatron-Core's fp8 settings (models.fp8_settings)"
        assert not config.fp8_param and not config.gradient_accumulation_fusion, "for Transformer Engine's weights only"
        self.fp8_scaling = SCALINGS[config.fp8_recipe](config)

    def _forward_impl(
        self,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        allreduce_dgrad: bool,
        sequence_parallel: bool,
        tp_group: dist.ProcessGroup | None,
        **unused: Any,
    ) -> torch.Tensor:
        """Called by Megatron-Core's `forward`, which does what comes after; the backward collectives are started here."""
        if sequence_parallel:
            input = gather_from_sequence_parallel_region(input, tensor_parallel_output_grad=True, group=tp_group)
        elif allreduce_dgrad:
            input = copy_to_tensor_model_parallel_region(input, group=tp_group)
        # rounded out here: inside a Function gradients are off, which delayed scaling takes for an evaluation
        rounded = self.fp8_scaling(input.detach().flatten(0, -2), weight.detach())
        output = _EmulatedProduct.apply(input, weight, rounded, self.fp8_scaling)
        return output if bias is None else output + bias


class EmulatedFp8ColumnParallelLinear(_EmulatedFp8, ColumnParallelLinear):
    """Megatron-Core's `ColumnParallelLinear` in emulated FP8, with its arguments; `config` has the fp8 settings."""


class EmulatedFp8RowParallelLinear(_EmulatedFp8, RowParallelLinear):
    """Megatron-Core's `RowParallelLinear` in emulated FP8, with its arguments; `config` has the fp8 settings."""


def emulated_linears(config: TransformerConfig, layer: int) -> tuple[type[torch.nn.Module], type[torch.nn.Module]]:
    """The column and row parallel linears of `layer` (from 0, counted over all pipeline stages).

    Megatron-Core's own ones where `first_last_layers_bf16` keeps the layer out of FP8.
    """
    if is_first_last_bf16_layer(config, layer):
        return ColumnParallelLinear, RowParallelLinear
    return EmulatedFp8ColumnParallelLinear, EmulatedFp8RowParallelLinear


def without_fp8_state(sharded_state: dict[str, Any]) -> dict[str, Any]:
    """A model's sharded state dict without delayed scaling's state: for weights that were trained without FP8.

    What is loaded so passes `load_state_dict`, also a strict one; the state stays that of a new model.
    """
    return {name: value for name, value in sharded_state.items() if f".{STATE}." not in f".{name}"}
