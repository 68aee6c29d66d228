"""SmolLM2-135M continued on Turkish with English replay: real weights that two CPU cores train, by the code of the large ones.

The shape is that of HuggingFaceTB/SmolLM2-135M's config.json, a Llama. The optimizer is SmolLM2's own (arXiv 2502.02737,
section 4, and its published training configuration); stages, batches and learning rates stand in the curriculum.
"""

from __future__ import annotations

from pathlib import Path

from megatron_recipes.config import AdamConfig, CausalDataConfig, DecoderConfig, DecoderRun
from megatron_recipes.recipes import CURRICULA

# config.json of HuggingFaceTB/SmolLM2-135M
LAYERS = 30
HIDDEN = 576
FFN_HIDDEN = 1_536  # half-width of the SwiGLU
HEADS = 9
QUERY_GROUPS = 3
HEAD_DIM = 64
VOCABULARY = 49_152
POSITIONS = 8_192
ROPE_THETA = 100_000.0
NORM_EPSILON = 1e-5
TIED = True

# SmolLM2's training configuration
BETA1, BETA2, EPSILON = 0.9, 0.95, 1e-8
WEIGHT_DECAY = 0.01
CLIP_GRAD = 1.0

# Ours
CURRICULUM = CURRICULA / "smollm2_turkish.yaml"
MICRO_BATCH_TOKENS = 2_048  # half of the curriculum's batch: one or two data-parallel ranks
VALIDATION_SEQUENCES = 32
CHECKPOINT_INTERVAL = 30  # steps, of 148: five checkpoints
VALIDATION_INTERVAL = 15


def recipe() -> DecoderRun:
    """The run as a configuration; every value can be overridden on the command line."""
    return DecoderRun(
        name="smollm2_135m_cpt",
        model=DecoderConfig(
            family="llama",
            num_layers=LAYERS,
            hidden_size=HIDDEN,
            ffn_hidden_size=FFN_HIDDEN,
            num_attention_heads=HEADS,
            num_query_groups=QUERY_GROUPS,
            head_dim=HEAD_DIM,
            vocab_size=VOCABULARY,
            max_sequence_length=POSITIONS,
            rope_theta=ROPE_THETA,
            norm_epsilon=NORM_EPSILON,
            tie_embeddings=TIED,
        ),
        data=CausalDataConfig(
            tokenizer=Path("data/smollm2/tokenizer"),
            validation=Path("data/smollm2/validation"),
            validation_sequences=VALIDATION_SEQUENCES,
        ),
        optimizer=AdamConfig(beta1=BETA1, beta2=BETA2, epsilon=EPSILON, weight_decay=WEIGHT_DECAY, clip_grad=CLIP_GRAD),
        curriculum=CURRICULUM,
        init_from=Path("ckpt/smollm2_135m"),
        micro_batch_tokens=MICRO_BATCH_TOKENS,
        checkpoint_interval=CHECKPOINT_INTERVAL,
        validation_interval=VALIDATION_INTERVAL,
    )
