"""Mursit-Base: the 155M-parameter encoder of the Mecellem paper (arXiv 2601.16018), from scratch on 112.7B tokens.

The paper's model cards give shape, length, vocabulary, masking and budget. They are silent about the optimizer, the
schedule and the batch: those are TabiBERT's (boun-tabi-LMG/TabiBERT), a Turkish ModernBERT of the same size whose
training configuration is public; Ettin's encoders use the same values.
"""

from __future__ import annotations

from pathlib import Path

from megatron_recipes.config import EncoderConfig, EncoderRun, MlmDataConfig, OptimizerConfig, ScheduleConfig

# Model card of Mursit-Base
LAYERS = 22
HIDDEN = 768
FFN_HIDDEN = 1_152  # half-width of the GeGLU
HEADS = 12
VOCABULARY = 59_008  # 128 x 461
SEQUENCE_LENGTH = 1_024
GLOBAL_ROPE_THETA = 10_000.0
TRAIN_TOKENS = 112_700_000_000  # the size of the paper's corpus; how often it was read is not published

# TabiBERT's training configuration
LEARNING_RATE = 8e-4
BETA1, BETA2, EPSILON = 0.9, 0.98, 1e-6
WEIGHT_DECAY = 1e-5
WARMUP_TOKENS = 1_050_000_000
DECAY_TOKENS = 17_500_000_000  # the last part of the budget, 1 - sqrt
GLOBAL_BATCH = 4_608  # sequences: 4.72M tokens a step

# Ours
MICRO_BATCH = 24  # fits a GPU of 64 GB without recomputation (--dry-run); 4,608 = 24 x 192: up to 192 GPUs
CHECKPOINT_INTERVAL = 1_000  # steps: 24 checkpoints to choose from (TabiBERT: 4,000, while decaying 1,000)
VALIDATION_INTERVAL = 250


def recipe() -> EncoderRun:
    """The run as a configuration; every value can be overridden on the command line."""
    return EncoderRun(
        name="mursit_base",
        model=EncoderConfig(
            num_layers=LAYERS,
            hidden_size=HIDDEN,
            ffn_hidden_size=FFN_HIDDEN,
            num_attention_heads=HEADS,
            vocab_size=VOCABULARY,
            max_sequence_length=SEQUENCE_LENGTH,
            global_rope_theta=GLOBAL_ROPE_THETA,
        ),
        data=MlmDataConfig(
            tokenizer=Path("data/tokenizer"),
            train=Path("data/train"),
            validation=Path("data/validation"),
            sequence_length=SEQUENCE_LENGTH,
            validation_sequences=2_304,  # 2.4M tokens, 350,000 of them masked: 57.6% accuracy to within 0.1 points
        ),
        optimizer=OptimizerConfig(lr=LEARNING_RATE, beta1=BETA1, beta2=BETA2, epsilon=EPSILON, weight_decay=WEIGHT_DECAY),
        schedule=ScheduleConfig(
            train_tokens=TRAIN_TOKENS,
            warmup_tokens=WARMUP_TOKENS,
            decay_tokens=DECAY_TOKENS,
            global_batch_size=GLOBAL_BATCH,
            micro_batch_size=MICRO_BATCH,
        ),
        checkpoint_interval=CHECKPOINT_INTERVAL,
        validation_interval=VALIDATION_INTERVAL,
    )
