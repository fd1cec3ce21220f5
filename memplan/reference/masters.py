"""fp32 copies of half-precision weights, which the optimizer updates, in plain PyTorch: one tensor for each parameter,
none of them flattened into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from memplan.config.run import TrainingRun
from memplan.reference.optimizers import Together, build_all


class MasterWeights(Together):
    """As DeepSpeed has it (deepspeed/runtime/fp16/unfused_optimizer.py, FP16_UnfusedOptimizer): gradients are in half
    precision until the step makes fp32 ones of them all, and stay beside these."""

    def __init__(self, parameters: Sequence[nn.Parameter], kinds: Sequence[str], run: TrainingRun) -> None:
        self.parameters = list(parameters)
        self.masters = [nn.Parameter(parameter.detach().float()) for parameter in parameters]
        super().__init__(build_all(self.masters, kinds, run))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of the weights; masters have none outside of the step."""
        for parameter in self.parameters:
            parameter.grad = None

    def take_gradients(self) -> None:
        """The masters' gradients, before the step. A parameter that got none has one of zeros."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter.grad is None:
                master.grad = torch.zeros_like(master)
            else:
                master.grad = parameter.grad.float()

    @torch.no_grad()
    def give_weights(self) -> None:
        """Copy the updated masters to the weights, after the step."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = None
            parameter.copy_(master)


class MainGradients(MasterWeights):
    """As Megatron-LM has it (megatron/core/optimizer/optimizer.py, Float16OptimizerWithFloat16Params;
    megatron/core/distributed/distributed_data_parallel.py): fp32 gradients that are there for good, to which the
    backward pass adds each gradient as soon as it is made; that is dropped at once."""

    def __init__(self, parameters: Sequence[nn.Parameter], kinds: Sequence[str], run: TrainingRun) -> None:
        super().__init__(parameters, kinds, run)
        self.main = dict(zip(self.parameters, self.masters, strict=True))
        for parameter, master in self.main.items():
            master.grad = torch.zeros_like(master)
            parameter.register_post_accumulate_grad_hook(self.add_up)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def add_up(self, parameter: torch.Tensor) -> None:
        """What is called when the gradient of `parameter` is there."""
        total = self.main[parameter].grad  # type: ignore[index]
        assert total is not None and parameter.grad is not None
        total.add_(parameter.grad)
        parameter.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients to zero."""
        for master in self.masters:
            assert master.grad is not None
            master.grad.zero_()

    def take_gradients(self) -> None:
        """They are there."""

    @torch.no_grad()
    def give_weights(self) -> None:
        """Copy the updated masters to the weights, after the step."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)
