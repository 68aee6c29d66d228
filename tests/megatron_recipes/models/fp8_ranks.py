"""Run by torch processes: a few training steps of a gated MLP in emulated FP8, on one rank or over two."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from megatron_recipes.config import Fp8Config, ParallelConfig
from megatron_recipes.engine.launch import Rank
from megatron_recipes.engine.parallel import parallel_state
from megatron_recipes.models.fp8_settings import FP8_SETTINGS, fp8_settings

HIDDEN, FFN, ROWS, STEPS = 256, 512, 32, 4


def train(precision: str, rank: int, tensor: int, sequence: bool) -> dict[str, torch.Tensor]:
    """Outputs, the input's gradients and the weights after each of `STEPS` steps of plain gradient descent, whole."""
    from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
    from megatron.core.transformer.transformer_config import TransformerConfig

    from megatron_recipes.models.fp8_emulation import EmulatedFp8ColumnParallelLinear, EmulatedFp8RowParallelLinear

    config = TransformerConfig(
        num_layers=1,
        hidden_size=HIDDEN,
        num_attention_heads=4,
        tensor_model_parallel_size=tensor,
        sequence_parallel=sequence,
        use_cpu_initialization=True,
        gradient_accumulation_fusion=False,
        **(fp8_settings(precision, Fp8Config(first_last_layers_bf16=False)) or {}),
    )
    shared = {"config": config, "init_method": torch.nn.init.zeros_, "bias": False, "skip_bias_add": False}
    up = EmulatedFp8ColumnParallelLinear(HIDDEN, FFN, gather_output=False, **shared)
    down = EmulatedFp8RowParallelLinear(FFN, HIDDEN, input_is_parallel=True, **shared)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer, dim in ((up, 0), (down, 1)):
            whole = torch.randn(FFN if dim == 0 else HIDDEN, HIDDEN if dim == 0 else FFN, generator=generator) / 16
            layer.weight.copy_(whole.chunk(tensor, dim)[rank])
    found: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        x = torch.randn(ROWS, 2, HIDDEN, generator=generator) * (1 + step)
        target = torch.randn(ROWS, 2, HIDDEN, generator=generator)
        x = x.chunk(tensor)[rank] if sequence else x
        target = target.chunk(tensor)[rank] if sequence else target
        x.requires_grad_()
        output = down(torch.nn.functional.gelu(up(x)[0]))[0]
        ((output - target) ** 2).sum().div(ROWS).backward()
        with torch.no_grad():
            for layer in (up, down):
                layer.weight -= 1e-3 * layer.weight.grad
                layer.weight.grad = None
        for name, value in (("output", output.detach()), ("gradient", x.grad)):
            found[f"{name} {step}"] = gather_from_sequence_parallel_region(value) if sequence else value
    for name, layer in (("up", up), ("down", down)):
        found |= {f"{name}.{key}": value for key, value in layer.state_dict().items() if "fp8_scaling" in key}
    return found


def main(rank: int, tensor: int, sequence: bool, folder: Path) -> None:
    place = Rank(rank, tensor, rank, str(folder / "store"))
    with parallel_state(place, ParallelConfig(tensor=tensor, sequence=sequence), 0):
        found = {precision: train(precision, rank, tensor, sequence) for precision in FP8_SETTINGS}
    torch.save(found, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "sequence", Path(sys.argv[4]))
