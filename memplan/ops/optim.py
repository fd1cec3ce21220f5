"""Optimizer states and the temporaries of a step (torch/optim/adam.py, adamw.py, sgd.py).

- for-loop: one parameter after another; Adam's denominator is computed out of place, and the one of the parameter
  before is still held by the loop variable while the next is made;
- foreach: one operation over all parameters at a time, so the denominators of all of them are alive together;
- fused: one kernel, no temporaries.
"""

from __future__ import annotations

from memplan.ops.elementwise import in_place, number, pointwise
from memplan.ops.tensor import Parameter, Storage, Tensor, empty
from memplan.ops.trace import Trace


class Optimizer:
    """State per parameter, and one step over all of them. `implementation` is for-loop, foreach or fused.

    One that steps within the backward pass has a single parameter, its `home`: what comes after it belongs there too.
    """

    def __init__(self, trace: Trace, parameters: list[Parameter], implementation: str) -> None:
        self.trace = trace
        self.parameters = [parameter for parameter in parameters if not parameter.unused]
        self.implementation = implementation
        self.state: list[list[Tensor]] = []
        self.home: Parameter | None = None

    @property
    def parts(self) -> list[Optimizer]:
        """The optimizers this is made of."""
        return [self]

    def allocate_state(self) -> None:
        """What the first step created and every later one keeps."""
        for parameter in self.parameters:
            self._at(parameter)
            tensors = self.new_state(parameter)
            for tensor in tensors:
                keep(tensor)
            self.state.append(tensors)
        self._leave()

    def make_states(self) -> None:
        """The first step makes every state before it updates anything (_init_group)."""
        for tensors in self.state:
            for tensor in tensors:
                self.trace.first_use(tensor)

    def new_state(self, parameter: Parameter) -> list[Tensor]:
        """The state tensors of one parameter."""
        raise NotImplementedError

    def step(self) -> None:
        """One update of every parameter."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Drop all gradients (`set_to_none=True`)."""
        for parameter in self.parameters:
            self._at(parameter)
            parameter.grad = None
        self._leave()

    def _at(self, parameter: Parameter) -> None:
        self.trace.enter_repeat(parameter.repeat)
        self.trace.module = parameter.name

    def _leave(self) -> None:
        if self.home is not None:
            self._at(self.home)
            return
        self.trace.enter_repeat(None)
        self.trace.module = ""


def keep(tensor: Tensor) -> Tensor:
    """A tensor that is the optimizer's for good."""
    if tensor.storage.allocation is not None:
        tensor.storage.allocation.component = "optimizer_state"
    return tensor


def step_counter(trace: Trace) -> Tensor:
    """How many steps a parameter has had: on a card it is counted on the host."""
    if trace.backend.cuda:
        return Tensor(Storage(trace, None), (), "fp32")
    return empty(trace, (), "fp32", "step")


class Adam(Optimizer):
    """Adam, and AdamW with its decoupled weight decay: two moments and a step counter per parameter."""

    def __init__(self, trace: Trace, parameters: list[Parameter], implementation: str, weight_decay: bool) -> None:
        super().__init__(trace, parameters, implementation)
        self.weight_decay = weight_decay

    def new_state(self, parameter: Parameter) -> list[Tensor]:
        moment = (self.trace, parameter.shape, parameter.dtype)
        fused = self.implementation == "fused"
        step = empty(self.trace, (), "fp32", "step") if fused else step_counter(self.trace)
        return [step, empty(*moment, "exp_avg"), empty(*moment, "exp_avg_sq")]

    def step(self) -> None:
        self.make_states()
        if self.implementation == "for-loop":
            self._for_loop()
        elif self.implementation == "foreach":
            self._foreach()
        else:
            self._fused()
        self._leave()

    def _for_loop(self) -> None:
        denominator: Tensor | None = None
        for parameter, (step, _, second) in zip(self.parameters, self.state, strict=True):
            self._at(parameter)
            in_place(step, 1)
            if self.weight_decay:
                in_place(parameter, 1.0)
            in_place(second, 0.999)
            root = pointwise("aten::sqrt", (second,))
            quotient = pointwise("aten::div", (root, number(root, 1.0)))
            del root
            in_place(quotient, 1e-8)
            denominator = quotient
            del quotient
        del denominator

    def _foreach(self) -> None:
        if not self.trace.backend.cuda:
            empty(self.trace, (), "fp32", "torch.tensor")
        if self.weight_decay:
            self._each_in_place(self.parameters)
        self._each_in_place([state[2] for state in self.state])
        roots = []
        for parameter, state in zip(self.parameters, self.state, strict=True):
            self._at(parameter)
            roots.append(pointwise("aten::_foreach_sqrt", (state[2],)))
        self._each_in_place(roots)  # / bias correction
        self._each_in_place(roots)  # + eps
        roots.reverse()
        for parameter in self.parameters:
            self._at(parameter)
            roots.pop()

    def _fused(self) -> None:
        self._each_in_place([state[0] for state in self.state])

    def _each_in_place(self, targets: list[Parameter] | list[Tensor]) -> None:
        for parameter, target in zip(self.parameters, targets, strict=True):
            self._at(parameter)
            in_place(target, 1.0)


class SGD(Optimizer):
    """SGD; with momentum one buffer per parameter."""

    def __init__(self, trace: Trace, parameters: list[Parameter], implementation: str, momentum: float) -> None:
        super().__init__(trace, parameters, implementation)
        self.momentum = momentum

    def new_state(self, parameter: Parameter) -> list[Tensor]:
        if not self.momentum:
            return []
        return [empty(self.trace, parameter.shape, parameter.dtype, "momentum_buffer")]

    def step(self) -> None:
        self.make_states()
        if self.momentum and self.implementation != "fused":
            for parameter, state in zip(self.parameters, self.state, strict=True):
                self._at(parameter)
                in_place(state[0], self.momentum)
        self._leave()
