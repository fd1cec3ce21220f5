"""Lion (https://arxiv.org/abs/2302.06675): the sign of an average of momentum and gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Lion(torch.optim.Optimizer):
    """One parameter after another, each with one state, its momentum."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        update: Tensor
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                parameter.mul_(1 - lr * group["weight_decay"])
                update = (momentum * beta1).add_(parameter.grad, alpha=1 - beta1).sign_()
                parameter.add_(update, alpha=-lr)
                momentum.lerp_(parameter.grad, 1 - beta2)
