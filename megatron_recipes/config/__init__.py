"""Everything that defines a training run, as frozen dataclasses without a line of torch."""

from megatron_recipes.config.common import (
    AdamConfig,
    Fp8Config,
    LayerSpec,
    ParallelConfig,
    Precision,
    RunConfig,
    padded_vocab_size,
    require,
)
from megatron_recipes.config.decoder import CausalDataConfig, DecoderConfig, DecoderRun, Family, RopeScaling
from megatron_recipes.config.encoder import EncoderConfig, EncoderRun, MlmDataConfig, OptimizerConfig, ScheduleConfig
from megatron_recipes.config.origins import as_flags, flatten, named_in, origins

__all__ = [
    "AdamConfig",
    "CausalDataConfig",
    "DecoderConfig",
    "DecoderRun",
    "EncoderConfig",
    "EncoderRun",
    "Family",
    "Fp8Config",
    "LayerSpec",
    "MlmDataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "Precision",
    "RopeScaling",
    "RunConfig",
    "ScheduleConfig",
    "as_flags",
    "flatten",
    "named_in",
    "origins",
    "padded_vocab_size",
    "require",
]

ModelConfig = EncoderConfig | DecoderConfig
