"""AdamW in the shape Megatron-Core's distributed optimizer expects, for machines without Transformer Engine or Apex."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class FusedAdam(torch.optim.Optimizer):
    """The interface and state layout of Apex's and TE's `FusedAdam` on torch's own fused kernels (CPU and CUDA).

    Megatron-Core's fallback to `torch.optim.AdamW` trains but cannot load a distributed optimizer's checkpoint: it looks
    for one `step` per parameter group, where torch keeps one per parameter. This class keeps it in the group.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        adam_w_mode: bool = True,
        bias_correction: bool = True,
        capturable: bool = False,  # passed by megatron-core 0.19, not by 0.16
    ) -> None:
        assert bias_correction, "Megatron-Core never asks for Adam without bias correction"
        assert not capturable, "only --optimizer_cuda_graph of Megatron-Core asks for it, which no recipe sets"
        self.adam_w_mode = adam_w_mode
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "bias_correction": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "Megatron-Core calls step() without a closure"
        kernel = torch._fused_adamw_ if self.adam_w_mode else torch._fused_adam_
        for group in self.param_groups:
            group["step"] = int(group.get("step", 0)) + 1
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if not self.state[p]:
                    self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            step = torch.tensor(float(group["step"]), device=parameters[0].device)
            kernel(
                parameters,
                [p.grad for p in parameters],
                [self.state[p]["exp_avg"] for p in parameters],
                [self.state[p]["exp_avg_sq"] for p in parameters],
                [],
                [step] * len(parameters),
                lr=float(group["lr"]),
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
