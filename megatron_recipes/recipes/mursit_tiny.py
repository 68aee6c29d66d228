"""Mursit-Tiny: a ModernBERT of 5M parameters that two CPU cores train in minutes, by the same code as the large ones.

Its shape is ours: ModernBERT's proportions (GeGLU half-width 1.5 x hidden, heads of 64 channels, every third layer
global), scaled down until the demo's text is enough for it to beat guessing by frequency.
"""

from __future__ import annotations

from pathlib import Path

from megatron_recipes.config import EncoderConfig, EncoderRun, MlmDataConfig, OptimizerConfig, ScheduleConfig

LAYERS = 6
HIDDEN = 256
FFN_HIDDEN = 384  # half-width of the GeGLU
HEADS = 4
VOCABULARY = 8_192  # what a few million words of text can fill
MAX_SEQUENCE_LENGTH = 512  # positions the exported model declares; RoPE carries beyond the training length
SEQUENCE_LENGTH = 128  # most documents of the sample are shorter

TRAIN_TOKENS = 3_000_000
WARMUP_TOKENS = 150_000  # 5% of the run
DECAY_TOKENS = 600_000  # 20% of the run
GLOBAL_BATCH = 32  # sequences: 4,096 tokens a step, 733 steps
MICRO_BATCH = 16  # two data-parallel ranks divide the batch
LEARNING_RATE = 1.5e-3  # small models take more than the 8e-4 of mursit_base
CHECKPOINT_INTERVAL = 150  # steps: five checkpoints to choose from
VALIDATION_INTERVAL = 50


def recipe() -> EncoderRun:
    """The run as a configuration; every value can be overridden on the command line."""
    return EncoderRun(
        name="mursit_tiny",
        model=EncoderConfig(
            num_layers=LAYERS,
            hidden_size=HIDDEN,
            ffn_hidden_size=FFN_HIDDEN,
            num_attention_heads=HEADS,
            vocab_size=VOCABULARY,
            max_sequence_length=MAX_SEQUENCE_LENGTH,
        ),
        data=MlmDataConfig(
            tokenizer=Path("data/tokenizer"),
            train=Path("data/train"),
            validation=Path("data/validation"),
            sequence_length=SEQUENCE_LENGTH,
        ),
        optimizer=OptimizerConfig(lr=LEARNING_RATE),
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
