"""Settings that Megatron-Core would silently ignore, or die of later: refused with the reason."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from megatron_recipes.config import DecoderConfig, DecoderRun, EncoderConfig, RunConfig, as_flags, flatten, require
from megatron_recipes.engine.environment import has_transformer_engine
from megatron_recipes.models.fp8_settings import Fp8Machine, refuse_fp8_tokens

if TYPE_CHECKING:
    import torch

    from megatron_recipes.data.curriculum import Curriculum
    from megatron_recipes.engine.checkpoint import CheckpointMeta


def refuse_ranks_without_gpu(ranks: int, gpus: int) -> None:
    """Raise `UserError` for more ranks on a machine than the GPUs that its processes see."""
    require(
        ranks <= gpus,
        f"{ranks} ranks on this machine but {gpus} {'GPU is' if gpus == 1 else 'GPUs are'} visible, and each rank needs one: "
        "lower --nproc, --parallel.tensor or --parallel.pipeline (or set CUDA_VISIBLE_DEVICES= to train on the CPU)",
    )


def refuse_stock_window(model: torch.nn.Module) -> None:
    """Raise `UserError` for local attention on Megatron-Core's own core, which drops the padding mask (Megatron-LM #7039)."""
    from megatron.core.transformer.dot_product_attention import DotProductAttention

    for name, module in model.named_modules():
        if isinstance(module, DotProductAttention) and module.config.window_size is not None:
            raise UserError(
                f"{name} is Megatron-Core's DotProductAttention with the window {module.config.window_size}: there it silently "
                "ignores which tokens are padding; build the layers with SDPACoreAttention or Transformer Engine's core"
            )


def refuse_stages(config: DecoderRun, curriculum: Curriculum, data_parallel: int) -> None:
    """Raise `UserError` for a stage whose batch or sequences the layout or the model do not take."""
    parallel = config.parallel
    curriculum.check_layout(data_parallel, config.micro_batch_tokens)
    curriculum.check_positions(config.model.max_sequence_length, config.model.rope_scaling)
    for index, stage in enumerate(curriculum.stages):
        where = curriculum.where(index, key="seq_len")
        parallel.check_length(stage.seq_len, where)
        tokens = config.micro_batch_tokens // stage.seq_len * stage.seq_len // parallel.context
        refuse_fp8_tokens(config.precision, config.fp8, tokens // (parallel.tensor if parallel.sequence else 1), where)


def unlike(run: EncoderConfig | DecoderConfig, start: EncoderConfig | DecoderConfig) -> dict[str, Any]:
    """What a run must set to start from a checkpoint of the model `start`: `{"model.rope_theta": 1e6, ...}`."""
    of_run = flatten(run, "model.")
    return {
        name: value
        for name, value in flatten(start, "model.").items()
        if of_run[name] != value and name != "model.init_std"  # which only weights from nothing are drawn with
    }


def refuse_other_start(folder: Path, model: EncoderConfig | DecoderConfig, tokenizer_sha256: str | None) -> CheckpointMeta:
    """Raise `UserError` when the checkpoint to start from is of another model or tokenizer than the run's.

    None for a tokenizer that is not looked at. Returns what the checkpoint says of itself.
    """
    from megatron_recipes.engine.checkpoint import read_meta

    try:
        meta = read_meta(folder)
    except UserError as error:
        raise UserError(
            f"--init-from: {error} (`mecellem convert import` makes one of a Hugging Face folder; --init-from None starts from "
            "random weights)"
        ) from None
    if type(meta.model) is not type(model):
        wanted = f"a {model.family} decoder" if isinstance(model, DecoderConfig) else "a ModernBERT"
        kind = "a decoder's" if isinstance(meta.model, DecoderConfig) else "an encoder's"
        raise UserError(f"--init-from {folder} is {kind} checkpoint: give one of {wanted}")
    values, of_run = unlike(model, meta.model), flatten(model, "model.")
    named = ", ".join(f"{name.removeprefix('model.')} {value} (the run: {of_run[name]})" for name, value in values.items())
    later = " (a stage of the curriculum may then change its RoPE)" if any(".rope_" in name for name in values) else ""
    require(
        not values,
        f"--init-from {folder} is another model than the run's, with {named}: choose the recipe of that model, or set "
        f"{as_flags(values)}{later}",
    )
    require(
        tokenizer_sha256 in (None, meta.tokenizer_sha256),
        f"--init-from {folder} was made with another tokenizer than --data.tokenizer: its ids would mean other words; give "
        f"{folder / 'tokenizer'} and tokenize the corpora with it",
    )
    return meta


def this_fp8_machine() -> Fp8Machine:
    """What FP8 depends on, of this rank's GPU and its libraries."""
    import torch

    def two(text: str | None) -> tuple[int, int]:
        first, second = (text or "0.0").split(".")[:2]
        return int(first), int(second)

    engine = two(importlib.metadata.version("transformer_engine")) if has_transformer_engine() else None
    return Fp8Machine(torch.cuda.get_device_capability(), two(torch.version.cuda), engine)


def refuse_layer_spec(config: RunConfig) -> None:
    """Raise `UserError` for layers that do not compute as the precision says, on any machine."""
    require(
        not config.fp8.emulate or config.layer_spec != "transformer_engine",
        "--fp8.emulate computes in torch, --layer-spec transformer_engine on the GPU's FP8 units: leave one of them out",
    )
    require(
        config.fp8.emulate or config.layer_spec != "local" or not config.precision.startswith("fp8"),
        f"--precision {config.precision} needs --layer-spec transformer_engine: Megatron-Core's local layers accept "
        "FP8 settings and silently compute without them (--fp8.emulate shows a decoder's FP8 numerics without a GPU)",
    )


def resolve_layer_spec(config: RunConfig, cuda: bool) -> str:
    """`local` or `transformer_engine` for this machine. Raises `UserError` where the recipe asks for what is not there."""
    refuse_layer_spec(config)
    fp8 = config.precision.startswith("fp8")
    if config.fp8.emulate or config.layer_spec == "local":
        return "local"
    available = cuda and has_transformer_engine()
    if config.layer_spec == "auto" and config.precision == "fp32":
        return "local"  # Transformer Engine multiplies fp32 matrices in TF32, and its fast attention has no fp32
    if config.layer_spec == "transformer_engine" or fp8:
        require(
            available,
            f"--precision {config.precision} --layer-spec {config.layer_spec} needs CUDA and Transformer Engine, and this "
            f"machine has {'no Transformer Engine' if cuda else 'no CUDA'}: use --precision bf16 --layer-spec local"
            f"{', or for a decoder --fp8.emulate to see its numerics' if fp8 else ''}",
        )
    return "transformer_engine" if available else "local"
