"""Mursit-Large: the 403M-parameter encoder of the Mecellem paper (arXiv 2601.16018); what differs from Mursit-Base.

Shape and length are the model card's. The learning rate is ModernBERT-large's (arXiv 2412.13663); TabiBERT, which
mursit_base follows where the paper is silent, has no large model.
"""

from __future__ import annotations

from dataclasses import replace

from megatron_recipes.config import EncoderRun
from megatron_recipes.recipes import mursit_base

# Model card of Mursit-Large
LAYERS = 28
HIDDEN = 1_024
FFN_HIDDEN = 2_624  # half-width of the GeGLU
HEADS = 16
SEQUENCE_LENGTH = 2_048
GLOBAL_ROPE_THETA = 20_000.0

# ModernBERT-large
LEARNING_RATE = 5e-4

# Ours
GLOBAL_BATCH = mursit_base.GLOBAL_BATCH // 2  # sequences twice as long: the same 4.72M tokens a step
MICRO_BATCH = 6  # fits a GPU of 64 GB without recomputation (--dry-run); 2,304 = 6 x 384: up to 384 GPUs
VALIDATION_SEQUENCES = 1_152  # the same 2.4M tokens


def recipe() -> EncoderRun:
    """The run as a configuration; every value can be overridden on the command line."""
    base = mursit_base.recipe()
    return replace(
        base,
        name="mursit_large",
        model=replace(
            base.model,
            num_layers=LAYERS,
            hidden_size=HIDDEN,
            ffn_hidden_size=FFN_HIDDEN,
            num_attention_heads=HEADS,
            max_sequence_length=SEQUENCE_LENGTH,
            global_rope_theta=GLOBAL_ROPE_THETA,
        ),
        data=replace(base.data, sequence_length=SEQUENCE_LENGTH, validation_sequences=VALIDATION_SEQUENCES),
        optimizer=replace(base.optimizer, lr=LEARNING_RATE),
        schedule=replace(base.schedule, global_batch_size=GLOBAL_BATCH, micro_batch_size=MICRO_BATCH),
    )
