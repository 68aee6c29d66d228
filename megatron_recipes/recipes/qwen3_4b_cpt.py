"""Qwen3-4B continued on 270.8B tokens of Turkish and law in one stage, after the Mecellem paper; what differs from the 1.7B.

The shape is that of Qwen/Qwen3-4B's config.json, which the paper's model card repeats.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from megatron_recipes.config import DecoderRun, ParallelConfig
from megatron_recipes.recipes import CURRICULA, qwen3_1p7b_cpt

# config.json of Qwen/Qwen3-4B
LAYERS = 36
HIDDEN = 2_560
FFN_HIDDEN = 9_728  # half-width of the SwiGLU
HEADS = 32

# Ours
CURRICULUM = CURRICULA / "mecellem_4b.yaml"
MICRO_BATCH_TOKENS = 8_192  # two sequences; fits 64 GB a GPU without recomputation (--dry-run)
TENSOR_PARALLEL = 2


def recipe() -> DecoderRun:
    """The run as a configuration; every value can be overridden on the command line."""
    base = qwen3_1p7b_cpt.recipe()
    return replace(
        base,
        name="qwen3_4b_cpt",
        model=replace(
            base.model,
            num_layers=LAYERS,
            hidden_size=HIDDEN,
            ffn_hidden_size=FFN_HIDDEN,
            num_attention_heads=HEADS,
        ),
        curriculum=CURRICULUM,
        init_from=Path("ckpt/qwen3_4b"),
        micro_batch_tokens=MICRO_BATCH_TOKENS,
        parallel=ParallelConfig(tensor=TENSOR_PARALLEL, sequence=True),
    )
