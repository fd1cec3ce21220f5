"""Adafactor (torch/optim/_adafactor.py): of a matrix the squared gradients' means over rows and columns are kept.

The local variables are those of PyTorch's loops: what they hold lives until the next parameter takes their place.
"""

from __future__ import annotations

from memplan.ops.elementwise import in_place, mean, pointwise
from memplan.ops.norms import vector_norm
from memplan.ops.optim import Optimizer, step_counter
from memplan.ops.tensor import Parameter, Tensor, empty
from memplan.ops.workspaces import take_workspaces


class Adafactor(Optimizer):
    """torch.optim.Adafactor with its default settings, for-loop or foreach."""

    def new_state(self, parameter: Parameter) -> list[Tensor]:
        step, shape = step_counter(self.trace), parameter.shape
        if len(shape) < 2:
            return [step, empty(self.trace, shape, parameter.dtype, "variance")]
        row = empty(self.trace, (*shape[:-1], 1), parameter.dtype, "row_var")
        return [step, row, empty(self.trace, (*shape[:-2], 1, shape[-1]), parameter.dtype, "col_var")]

    def step(self) -> None:
        self.make_states()
        if self.implementation == "foreach":
            self._foreach()
        else:
            self._for_loop()

    def _for_loop(self) -> None:
        row_mean: Tensor | None = None
        column_mean: Tensor | None = None
        squares: Tensor | None = None
        estimate: Tensor | None = None
        update: Tensor | None = None
        for parameter, state in zip(self.parameters, self.state, strict=True):
            self._at(parameter)
            in_place(state[0], 1)
            vector_norm(parameter)
            gradient = parameter.grad
            assert gradient is not None
            if len(state) > 2:
                row_mean = _mean_square(gradient, -1)
                column_mean = _mean_square(gradient, -2)
                estimate = _outer(state[1], state[2])
                mean(state[1], -2, keepdim=True)
            else:
                squares = pointwise("aten::mul", (gradient, gradient))
                estimate = pointwise("aten::clone", (state[1],))
            update = estimate
            vector_norm(update)
        self._leave()
        del row_mean, column_mean, squares, estimate, update

    def _foreach(self) -> None:
        """One kind of parameters after the other, that of the first one first: those with rows and columns, and
        vectors. The estimates of the first kind live until those of the second are there."""
        kinds: dict[bool, list[tuple[Parameter, list[Tensor]]]] = {}
        for parameter, state in zip(self.parameters, self.state, strict=True):
            kinds.setdefault(len(state) > 2, []).append((parameter, state))
        updates: list[tuple[Parameter, Tensor]] = []
        for factored, group in kinds.items():
            self._leave()
            empty(self.trace, (), "fp32", "torch.tensor") if not self.trace.backend.cuda else None
            for parameter, _ in group:
                self._at(parameter)
                vector_norm(parameter)
            estimates = self._factored(group) if factored else self._plain(group)
            self._drop(updates)
            updates = estimates
            del estimates
            for parameter, update in updates:
                self._at(parameter)
                vector_norm(update)
            for parameter, update in updates:
                self._at(parameter)
                in_place(update, 1.0)
        del parameter, update
        self._drop(updates)
        self._leave()

    def _factored(self, group: list[tuple[Parameter, list[Tensor]]]) -> list[tuple[Parameter, Tensor]]:
        for axis in (-1, -2):
            means: list[tuple[Parameter, Tensor]] = []
            for parameter, _ in group:
                self._at(parameter)
                means.append((parameter, vector_norm(_gradient(parameter), axis)))
            for parameter, _ in group:
                self._at(parameter)
                in_place(_gradient(parameter), 1)
            self._drop(means)
        estimates = []
        for parameter, state in group:
            self._at(parameter)
            estimates.append((parameter, _outer(state[1], state[2])))
        means = []
        for parameter, state in group:
            self._at(parameter)
            means.append((parameter, mean(state[1], -2, keepdim=True)))
        self._drop(means)
        return estimates

    def _plain(self, group: list[tuple[Parameter, list[Tensor]]]) -> list[tuple[Parameter, Tensor]]:
        squares: list[tuple[Parameter, Tensor]] = []
        for parameter, _ in group:
            self._at(parameter)
            gradient = _gradient(parameter)
            squares.append((parameter, pointwise("aten::_foreach_mul", (gradient, gradient))))
        self._drop(squares)
        estimates = []
        for parameter, state in group:
            self._at(parameter)
            estimates.append((parameter, pointwise("aten::clone", (state[1],))))
        return estimates

    def _drop(self, tensors: list[tuple[Parameter, Tensor]]) -> None:
        """Free a list, each layer's part in its own layer."""
        tensors.reverse()
        while tensors:
            self._at(tensors[-1][0])
            tensors.pop()


def _gradient(parameter: Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _mean_square(gradient: Tensor, axis: int) -> Tensor:
    """torch.norm(gradient, dim=axis, keepdim=True).square_().div_(length)"""
    norm = vector_norm(gradient, axis)
    in_place(norm, 1)
    return norm


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    """rows [..., n, 1] @ columns [..., 1, m]"""
    product = empty(rows.trace, (*rows.shape[:-1], columns.shape[-1]), rows.dtype, "aten::matmul")
    take_workspaces(rows.trace)
    return product
