"""fp32 copies of half-precision weights, which the optimizer updates: one tensor for each parameter, none of them
flattened into one."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.config.run import TrainingRun
from memplan.ops.elementwise import to
from memplan.ops.optim import keep
from memplan.ops.tensor import Parameter, Storage, Tensor, empty
from memplan.ops.trace import Trace
from memplan.transformer.optimizers import Together, build_all


class MasterWeights(Together):
    """As DeepSpeed has it (deepspeed/runtime/fp16/unfused_optimizer.py, FP16_UnfusedOptimizer): gradients are in half
    precision until the step makes fp32 ones of them all, and stay beside these."""

    def __init__(self, trace: Trace, parameters: Sequence[Parameter], kinds: Sequence[str], run: TrainingRun) -> None:
        self.parameters = list(parameters)
        self.masters: list[Parameter] = []
        self.trace = trace
        for parameter in parameters:
            self.at(parameter)
            master = Parameter(
                Storage(trace, trace.allocate(parameter.shape, "fp32", "master")), parameter.shape, "fp32"
            )
            keep(master)
            trace.found(master)
            master.name, master.repeat = parameter.name, parameter.repeat
            self.masters.append(master)
        self.leave()
        super().__init__(trace, build_all(trace, self.masters, kinds, run))

    def at(self, parameter: Parameter) -> None:
        """What happens from here on is of this parameter."""
        self.trace.enter_repeat(parameter.repeat)
        self.trace.module = parameter.name

    def leave(self) -> None:
        """What happens from here on is of no parameter."""
        self.trace.enter_repeat(None)
        self.trace.module = ""

    def zero_grad(self) -> None:
        """Drop the gradients of the weights; masters have none outside of the step."""
        for parameter in self.parameters:
            self.at(parameter)
            parameter.grad = None
        self.leave()

    def take_gradients(self) -> None:
        """The masters' gradients, before the step. A parameter that got none has one of zeros."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            self.at(parameter)
            if parameter.grad is None:
                master.grad = empty(self.trace, master.shape, "fp32", "aten::zeros_like")
            else:
                master.grad = to(parameter.grad, "fp32")
        self.leave()

    def give_weights(self) -> None:
        """Copy the updated masters to the weights, after the step."""
        for master in self.masters:
            self.at(master)
            master.grad = None
        self.leave()


class MainGradients(MasterWeights):
    """As Megatron-LM has it (megatron/core/optimizer/optimizer.py, Float16OptimizerWithFloat16Params;
    megatron/core/distributed/distributed_data_parallel.py): fp32 gradients that are there for good, to which the
    backward pass adds each gradient as soon as it is made; that is dropped at once."""

    def __init__(self, trace: Trace, parameters: Sequence[Parameter], kinds: Sequence[str], run: TrainingRun) -> None:
        super().__init__(trace, parameters, kinds, run)
        self.main = dict(zip(self.parameters, self.masters, strict=True))
        for parameter, master in self.main.items():
            self.at(parameter)
            master.grad = empty(trace, master.shape, "fp32", "main gradient")
            if master.grad.storage.allocation is not None:
                master.grad.storage.allocation.component = "gradients"
            parameter.hook = self.add_up
        self.leave()

    def add_up(self, parameter: Parameter) -> None:
        """What is called when the gradient of `parameter` is there."""
        total = self.main[parameter].grad
        assert total is not None and parameter.grad is not None
        _add_in_place(total, parameter.grad)
        parameter.grad = None

    def zero_grad(self) -> None:
        """Set the gradients to zero."""

    def take_gradients(self) -> None:
        """They are there."""

    def give_weights(self) -> None:
        """Copy the updated masters to the weights, after the step."""


def _add_in_place(total: Tensor, gradient: Tensor) -> None:
    """total.add_(gradient): the CPU casts the gradient first."""
    if gradient.dtype != total.dtype and not total.trace.backend.cuda:
        to(gradient, total.dtype)
