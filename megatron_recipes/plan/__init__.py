"""`mecellem train RECIPE --dry-run`: what a run would take, from its configuration alone, without torch or a GPU.

Parameters and steps are exact; memory, time and checkpoint size are estimates whose formulas stand beside the numbers.
"""

from __future__ import annotations

from mecellem.console import console, heading
from megatron_recipes.config import DecoderConfig, DecoderRun, EncoderConfig, EncoderRun, RunConfig
from megatron_recipes.engine.refusals import refuse_layer_spec
from megatron_recipes.models.fp8_settings import refuse_fp8
from megatron_recipes.plan.encoder import encoder_flops_per_token, encoder_parameters, plan_encoder
from megatron_recipes.plan.parts import GPU_MEMORY_GB, H100_PEAK_TFLOPS, Machine, Parameters, Plan, human_count

__all__ = [
    "GPU_MEMORY_GB",
    "H100_PEAK_TFLOPS",
    "Plan",
    "count_parameters",
    "flops_per_token",
    "human_count",
    "plan",
    "print_plan",
]


def count_parameters(model: EncoderConfig | DecoderConfig) -> Parameters:
    """Trainable weights of a model, without building it."""
    if isinstance(model, EncoderConfig):
        return encoder_parameters(model)
    from megatron_recipes.plan.decoder import decoder_parameters

    return decoder_parameters(model)


def flops_per_token(config: RunConfig, sequence_length: int) -> float:
    """FLOPs of forward and backward for one token, as the plan counts them, at that length of a sequence."""
    if isinstance(config, EncoderRun):
        return sum(encoder_flops_per_token(config))
    from megatron_recipes.plan.decoder import decoder_flops_per_token

    assert isinstance(config, DecoderRun)
    return sum(decoder_flops_per_token(config.model, sequence_length))


def plan(
    config: RunConfig,
    gpus: int,
    mfu: float = 0.30,
    peak_tflops: float = H100_PEAK_TFLOPS,
    gpu_memory_gb: float = GPU_MEMORY_GB,
) -> Plan:
    """Work out what `config` takes on `gpus` GPUs of `peak_tflops` TFLOP/s, of which it reaches the share `mfu`.

    Raises `UserError` for whatever settings the run itself would refuse on that many GPUs.
    """
    machine = Machine(gpus, mfu, peak_tflops, gpu_memory_gb)
    machine.check()
    config.check(gpus)
    refuse_fp8(config)
    refuse_layer_spec(config)
    if isinstance(config, EncoderRun):
        return plan_encoder(config, machine)
    from megatron_recipes.plan.decoder import plan_decoder  # reads YAML, which encoders do without

    assert isinstance(config, DecoderRun)
    return plan_decoder(config, machine)


def print_plan(p: Plan) -> None:
    """Print the plan as a table on standard output."""
    out = console()
    heading(out, f"plan of {p.config.name}")
    for what, amount, note in p.rows():
        out.print(f"{what:<20} {amount:>20}  {note}", markup=False)
    if p.config.fp8.emulate:
        return  # no time was worked out
    out.print(
        "\nEttin reached an MFU of 0.25 (150M) to 0.34 (400M) on H100s (worked out from its published hours); --gpus, "
        "--mfu, --peak-tflops and --gpu-memory-gb set other machines.\nTime is arithmetic only: no "
        "validation, no checkpoints, no waiting in a queue."
    )
