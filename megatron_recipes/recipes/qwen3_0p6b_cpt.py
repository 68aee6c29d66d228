"""Qwen3-0.6B through the curriculum of the 1.7B: the smallest Qwen3, for trying a curriculum out; what differs from the 1.7B.

The shape is that of Qwen/Qwen3-0.6B's config.json.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from megatron_recipes.config import DecoderRun, ParallelConfig
from megatron_recipes.recipes import qwen3_1p7b_cpt

# config.json of Qwen/Qwen3-0.6B
HIDDEN = 1_024
FFN_HIDDEN = 3_072  # half-width of the SwiGLU

# Ours
TENSOR_PARALLEL = 2  # the long-context stage fits 64 GB a GPU without recomputation (--dry-run)


def recipe() -> DecoderRun:
    """The run as a configuration; every value can be overridden on the command line."""
    base = qwen3_1p7b_cpt.recipe()
    return replace(
        base,
        name="qwen3_0p6b_cpt",
        model=replace(base.model, hidden_size=HIDDEN, ffn_hidden_size=FFN_HIDDEN),
        init_from=Path("ckpt/qwen3_0p6b"),
        parallel=ParallelConfig(tensor=TENSOR_PARALLEL, sequence=True),
    )
