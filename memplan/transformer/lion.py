"""Lion (https://arxiv.org/abs/2302.06675): the sign of an average of momentum and gradient."""

from __future__ import annotations

from memplan.ops.elementwise import in_place, number, pointwise
from memplan.ops.optim import Optimizer
from memplan.ops.tensor import Parameter, Tensor, empty


class Lion(Optimizer):
    """One parameter after another, each with one state, its momentum."""

    def new_state(self, parameter: Parameter) -> list[Tensor]:
        return [empty(self.trace, parameter.shape, parameter.dtype, "momentum")]

    def step(self) -> None:
        update: Tensor | None = None
        for parameter, (momentum,) in zip(self.parameters, self.state, strict=True):
            self._at(parameter)
            self.trace.first_use(momentum)
            in_place(parameter, 1.0)
            update = pointwise("aten::mul", (momentum, number(momentum, 0.9)))
        self._leave()
        del update
