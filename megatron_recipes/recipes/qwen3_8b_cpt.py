"""Qwen3-8B through the curriculum of the 4B; what differs from the 4B.

The shape is that of Qwen/Qwen3-8B's config.json. The paper has no model of this size.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from megatron_recipes.config import DecoderRun, ParallelConfig
from megatron_recipes.recipes import qwen3_4b_cpt

# config.json of Qwen/Qwen3-8B
HIDDEN = 4_096
FFN_HIDDEN = 12_288  # half-width of the SwiGLU
TIED = False  # its output layer is a matrix of its own

# Ours
TENSOR_PARALLEL = 4  # fits 64 GB a GPU without recomputation (--dry-run)


def recipe() -> DecoderRun:
    """The run as a configuration; every value can be overridden on the command line."""
    base = qwen3_4b_cpt.recipe()
    return replace(
        base,
        name="qwen3_8b_cpt",
        model=replace(base.model, hidden_size=HIDDEN, ffn_hidden_size=FFN_HIDDEN, tie_embeddings=TIED),
        init_from=Path("ckpt/qwen3_8b"),
        parallel=ParallelConfig(tensor=TENSOR_PARALLEL, sequence=True),
    )
