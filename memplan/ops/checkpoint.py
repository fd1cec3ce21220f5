"""Activation checkpointing without reentrant autograd.

Mirrors torch/utils/checkpoint.py (_checkpoint_without_reentrant_generator).

In the forward pass every saved tensor is replaced by an empty holder. The first holder that is asked for runs the
function again; what it saves this time is handed out, once each, but what nobody can ask for any more, since its node
is gone, is not kept. The second run stops as soon as it has saved as many tensors as the first ("early stop").
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

from memplan.ops.autograd import SavedTensorHooks
from memplan.ops.tensor import Leaf, Tensor, empty

GENERATOR_STATE_BYTES = 5056
"""torch.get_rng_state() on the CPU: aten/src/ATen/CPUGeneratorImpl.cpp, sizeof(CPUGeneratorImplState)."""


class _StopRecomputation(Exception):
    """Everything that was saved before has been saved again."""


class _Holder:
    """What a node keeps in place of a tensor: its number."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number


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
        self.holders: list[ref[_Holder]] = []
        self.recomputed: list[Tensor | None] | None = None

    def pack(self, tensor: Tensor) -> object:
        holder = _Holder(len(self.holders))
        self.holders.append(ref(holder))
        return holder

    def unpack(self, packed: _Holder) -> Tensor:
        if self.recomputed is None:
            self.recomputed = self._recompute()
        tensor, self.recomputed[packed.number] = self.recomputed[packed.number], None
        assert tensor is not None
        return tensor

    def _recompute(self) -> list[Tensor | None]:
        trace = self.trace
        hooks = _Recomputation(self.holders)
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

    def __init__(self, holders: list[ref[_Holder]]) -> None:
        self.holders = holders
        self.tensors: list[Tensor | None] = []

    def pack(self, tensor: Tensor) -> object:
        wanted = self.holders[len(self.tensors)]() is not None
        self.tensors.append(tensor if wanted else None)
        if len(self.tensors) == len(self.holders):
            raise _StopRecomputation
        return tensor  # held by the second run's own graph


def _reattached(tensor: Tensor) -> Tensor:
    """An input as it was: same memory, same place in the graph."""
    if isinstance(tensor, Leaf):
        return tensor
    copy = tensor.alias()
    copy.requires_grad, copy.node, copy.output_index = tensor.requires_grad, tensor.node, tensor.output_index
    return copy


def _generator_state(like: Tensor) -> Tensor | None:
    """Kept on the host, that of a GPU's generator too (torch/utils/checkpoint.py, get_device_states)."""
    return (
        None if like.trace.backend.cuda else empty(like.trace, (GENERATOR_STATE_BYTES,), "uint8", "torch.get_rng_state")
    )


def checkpoint(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """function(*arguments), keeping only the arguments for the backward pass."""
    hooks = _Forward(function, arguments)
    trace = hooks.trace
    before, trace.hooks = trace.hooks, hooks
    try:
        return function(*arguments)
    finally:
        trace.hooks = before
