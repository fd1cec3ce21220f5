"""Activation checkpointing without reentrant autograd.

Mirrors torch/utils/checkpoint.py (_checkpoint_without_reentrant_generator).

In the forward pass every saved tensor is replaced by an empty holder. The first holder that is asked for runs the
function again; what it saves this time is handed out, once each. The second run stops as soon as it has saved as many
tensors as the first ("early stop").
"""

from __future__ import annotations

from collections.abc import Callable

from memplan.ops.autograd import SavedTensorHooks
from memplan.ops.tensor import Tensor, empty

GENERATOR_STATE_BYTES = 5056
"""torch.get_rng_state() on the CPU: aten/src/ATen/CPUGeneratorImpl.cpp, sizeof(CPUGeneratorImplState)."""


class _StopRecomputation(Exception):
    """Everything that was saved before has been saved again."""


class _Forward(SavedTensorHooks):
    """Keeps the function and its inputs in place of what it saves."""

    def __init__(self, function: Callable[..., Tensor], arguments: tuple[object, ...]) -> None:
        first = arguments[0]
        assert isinstance(first, Tensor)
        self.trace = first.trace
        self.function = function
        self.arguments = tuple(_reattached(item) if isinstance(item, Tensor) else item for item in arguments)
        self.generator_state: Tensor | None = _generator_state(first)
        self.autocast_dtype = self.trace.autocast_dtype
        self.saved = 0
        self.recomputed: list[Tensor | None] | None = None

    def pack(self, tensor: Tensor) -> object:
        self.saved += 1
        return self.saved - 1

    def unpack(self, packed: int) -> Tensor:
        if self.recomputed is None:
            self.recomputed = self._recompute()
        tensor, self.recomputed[packed] = self.recomputed[packed], None
        assert tensor is not None
        return tensor

    def _recompute(self) -> list[Tensor | None]:
        trace = self.trace
        hooks = _Recomputation(self.saved)
        before, module, grad_enabled = trace.hooks, trace.module, trace.grad_enabled
        trace.hooks, trace.grad_enabled = hooks, True
        trace.begin_forward_pass()
        first = self.arguments[0]
        assert isinstance(first, Tensor)
        present_state = _generator_state(first)  # put back afterwards (fork_rng)
        try:
            with trace.autocast(self.autocast_dtype):
                self.function(*self.arguments)
        except _StopRecomputation:
            pass
        finally:
            del present_state
            trace.forward_pass = 0
            trace.hooks, trace.module, trace.grad_enabled = before, module, grad_enabled
        return hooks.tensors


class _Recomputation(SavedTensorHooks):
    """Collects what the second run saves."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.tensors: list[Tensor | None] = []

    def pack(self, tensor: Tensor) -> object:
        self.tensors.append(tensor)
        if len(self.tensors) == self.expected:
            raise _StopRecomputation
        return None


def _reattached(tensor: Tensor) -> Tensor:
    """An input as it was: same memory, same place in the graph."""
    copy = tensor.alias()
    copy.requires_grad, copy.node, copy.output_index = tensor.requires_grad, tensor.node, tensor.output_index
    return copy


def _generator_state(like: Tensor) -> Tensor:
    return empty(like.trace, (GENERATOR_STATE_BYTES,), "uint8", "torch.get_rng_state")


def checkpoint(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """function(*arguments), keeping only the arguments for the backward pass."""
    hooks = _Forward(function, arguments)
    trace = hooks.trace
    before, trace.hooks = trace.hooks, hooks
    try:
        return function(*arguments)
    finally:
        trace.hooks = before
