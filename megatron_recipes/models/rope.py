"""Rotary position embeddings with the scalings that Qwen3 and Llama document, equal to those of transformers."""

from __future__ import annotations

import math

import torch

from megatron_recipes.config import RopeScaling


def rope_frequencies(head_dim: int, theta: float, scaling: RopeScaling) -> tuple[torch.Tensor, float]:
    """Radians per position `[head_dim / 2]`, fp32, and the factor by which cosines and sines are multiplied."""
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if scaling.rope_type == "yarn":
        return _yarn(frequencies, theta, scaling), max(1.0, 0.1 * math.log(scaling.factor) + 1.0)
    if scaling.rope_type == "llama3":
        return _llama3(frequencies, scaling), 1.0
    assert scaling.rope_type == "none", scaling.rope_type  # `RopeScaling.check` knows no other
    return frequencies, 1.0


def _yarn(frequencies: torch.Tensor, theta: float, scaling: RopeScaling) -> torch.Tensor:
    """Peng et al. 2023 (arXiv 2309.00071), section 3.2: channels that turn often stay, slow ones are interpolated."""
    dim = 2 * frequencies.numel()

    def channel(rotations: float) -> float:
        """The channel pair that makes `rotations` turns within the length of pre-training."""
        wavelength = scaling.original_max_position_embeddings / (2.0 * math.pi * rotations)
        return dim * math.log(wavelength) / (2.0 * math.log(theta))

    first = max(math.floor(channel(scaling.beta_fast)), 0)
    last = float(min(math.ceil(channel(scaling.beta_slow)), dim - 1))
    last = last if last != first else last + 0.001  # as transformers keeps the ramp from dividing by zero
    interpolated = ((torch.arange(dim // 2, dtype=torch.float32) - first) / (last - first)).clamp(0.0, 1.0)
    return frequencies / scaling.factor * interpolated + frequencies * (1.0 - interpolated)


def _llama3(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Llama 3.1: wavelengths beyond the length of pre-training are stretched, short ones kept, between them a blend."""
    turns = scaling.original_max_position_embeddings * frequencies / (2.0 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0.0, 1.0)
    return (1.0 - kept) * frequencies / scaling.factor + kept * frequencies


def rope_angles(frequencies: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Angles `[t, 1, 1, head_dim]`, fp32, at integer `positions` `[t]`, in the layout that Megatron-Core rotates by."""
    angles = torch.outer(positions.to(torch.float32), frequencies.to(positions.device))
    return torch.cat([angles, angles], dim=-1)[:, None, None]
