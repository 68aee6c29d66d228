"""Qwen3-1.7B continued on Turkish and Turkish law in four stages, after the Mecellem paper (arXiv 2601.16018).

The shape is that of Qwen/Qwen3-1.7B's config.json. What is read when, in which batches and at which learning rates stands in
the curriculum. The paper publishes neither optimizer nor layout, Qwen3's report (arXiv 2505.09388) no optimizer: those are
Llama 2's (arXiv 2307.09288, section 2.2), which most open decoders of these sizes share.
"""

from __future__ import annotations

from pathlib import Path

from megatron_recipes.config import AdamConfig, CausalDataConfig, DecoderConfig, DecoderRun, ParallelConfig
from megatron_recipes.recipes import CURRICULA

# config.json of Qwen/Qwen3-1.7B; Qwen3-1.7B-Base differs in declaring 32,768 positions
LAYERS = 28
HIDDEN = 2_048
FFN_HIDDEN = 6_144  # half-width of the SwiGLU
HEADS = 16
QUERY_GROUPS = 8
HEAD_DIM = 128
VOCABULARY = 151_936  # rows of the embedding; the tokenizer has 151,669 entries
POSITIONS = 40_960
ROPE_THETA = 1_000_000.0
NORM_EPSILON = 1e-6
TIED = True  # Qwen3 up to 4B

# Llama 2
BETA1, BETA2 = 0.9, 0.95
WEIGHT_DECAY = 0.1
CLIP_GRAD = 1.0

# Ours
EPSILON = 1e-8  # AdamW's usual value; Llama 2's 1e-5 would drown the small gradients of a model that has converged
CURRICULUM = CURRICULA / "mecellem_1p7b.yaml"
MICRO_BATCH_TOKENS = 32_768  # one sequence of the long-context stage
TENSOR_PARALLEL = 4  # one node of MareNostrum 5; with it that stage fits 64 GB a GPU without recomputation (--dry-run)
VALIDATION_SEQUENCES = 512  # 2.1M tokens in sequences of 4,096
CHECKPOINT_INTERVAL = 2_500  # steps: 10.5B tokens, 24 checkpoints to choose from
VALIDATION_INTERVAL = 250


def recipe() -> DecoderRun:
    """The run as a configuration; every value can be overridden on the command line."""
    return DecoderRun(
        name="qwen3_1p7b_cpt",
        model=DecoderConfig(
            family="qwen3",
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
            tokenizer=Path("data/qwen3/tokenizer"),
            validation=Path("data/qwen3/validation"),
            validation_sequences=VALIDATION_SEQUENCES,
        ),
        optimizer=AdamConfig(beta1=BETA1, beta2=BETA2, epsilon=EPSILON, weight_decay=WEIGHT_DECAY, clip_grad=CLIP_GRAD),
        curriculum=CURRICULUM,
        init_from=Path("ckpt/qwen3_1p7b"),
        micro_batch_tokens=MICRO_BATCH_TOKENS,
        parallel=ParallelConfig(tensor=TENSOR_PARALLEL, sequence=True),
        checkpoint_interval=CHECKPOINT_INTERVAL,
        validation_interval=VALIDATION_INTERVAL,
    )
