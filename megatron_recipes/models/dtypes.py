"""The type of the weights in the forward and backward pass, for each precision."""

from __future__ import annotations

import torch

from megatron_recipes.config import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp8_hybrid": torch.bfloat16,
    "fp8_current": torch.bfloat16,
    "fp8_block": torch.bfloat16,
}
