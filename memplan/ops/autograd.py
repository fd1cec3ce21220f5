"""Sizes-only autograd: PyTorch's order of execution and its lifetimes.

Mirrors torch/csrc/autograd/engine.cpp (evaluate_function, call_function, validate_outputs), input_buffer.cpp
(accumulate), saved_variable.cpp and functions/accumulate_grad.h:

- nodes run newest first, by sequence number; gradients of parameters are taken as soon as they are ready;
- a node allocates its outputs and temporaries, then its incoming gradients are dropped, then its saved tensors;
- a second gradient for the same input is added in place if nobody else holds the first one, else out of place;
- the first gradient of a parameter is taken over, not copied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any
from weakref import ref

from memplan.ops import layout
from memplan.ops.layout import Shape
from memplan.ops.reduction import take_buffers
from memplan.ops.size import product
from memplan.ops.tensor import Leaf, Number, Parameter, Tensor, empty, result_layout, row_major_copy
from memplan.ops.trace import Trace

Gradients = Sequence[Tensor | None]
Saved = Sequence[Tensor]
Backward = Callable[["Node", Any, Saved], Gradients]
"""Rule of one backward node: (node, incoming gradient, saved tensors) -> one gradient per edge.
A node with several outputs gets a list of incoming gradients."""


class SavedTensorHooks:
    """torch.autograd.graph.saved_tensors_hooks: what to keep in place of a saved tensor, and how to get it back."""

    def pack(self, tensor: Tensor) -> object:
        """Called when a tensor is saved for the backward pass."""
        raise NotImplementedError

    def unpack(self, packed: Any) -> Tensor:
        """Called when the backward pass asks for it."""
        raise NotImplementedError


class Packed:
    """What hooks put in place of a saved tensor."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Edge:
    """Where a gradient goes, and the shape and dtype it must have there."""

    __slots__ = ("dtype", "index", "node", "shape")

    def __init__(self, node: Node, index: int, shape: Shape, dtype: str) -> None:
        self.node = node
        self.index = index
        self.shape = shape
        self.dtype = dtype


class Node:
    """One backward function. `saved` holds what it keeps alive, `context` plain values it needs (never tensors)."""

    __slots__ = (
        "backward", "buffer", "context", "edges", "hooks", "module", "name", "outputs", "pending", "repeat", "saved",
        "sequence",
    )  # fmt: skip

    def __init__(self, trace: Trace, name: str, backward: Backward, inputs: Sequence[Tensor | None]) -> None:
        self.name = name
        self.backward = backward
        self.edges: list[Edge | None] = [
            gradient_edge(tensor) if tensor is not None and tensor.requires_grad else None for tensor in inputs
        ]
        trace.next_sequence += 1
        self.sequence = -trace.next_sequence  # smallest runs first
        self.module = trace.module
        self.repeat = trace.repeat
        self.hooks: SavedTensorHooks | None = None
        self.saved: list[Any] = []
        self.context: Any = None
        self.outputs = 1
        self.buffer: list[Tensor | None] | None = None
        self.pending = 0

    def save(self, tensor: Tensor) -> None:
        """Keep `tensor` for the backward pass (SavedVariable)."""
        saved = tensor.alias()
        hooks = tensor.trace.hooks
        if hooks is not None and not isinstance(tensor, Number):
            self.hooks = hooks
            self.saved.append(Packed(hooks.pack(saved)))
            return
        allocation = tensor.storage.allocation
        if allocation is not None and not allocation.saved_by:
            allocation.saved_by = self.name
        self.saved.append(saved)

    def wants(self, index: int) -> bool:
        """Whether input number `index` needs a gradient."""
        return self.edges[index] is not None

    def run(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        """The outgoing gradients, as the next nodes expect them."""
        incoming = gradients if self.outputs > 1 else gradients[0]
        hooks = self.hooks
        result = list(
            self.backward(
                self,
                incoming,
                self.saved
                if hooks is None
                else [hooks.unpack(item.value) if isinstance(item, Packed) else item for item in self.saved],
            )
        )
        validate(self, result)
        return result


class AccumulateGrad(Node):
    """The end of the graph at one parameter."""

    __slots__ = ("__weakref__", "parameter")

    def __init__(self, parameter: Parameter) -> None:
        self.name = "AccumulateGrad"
        self.parameter = parameter
        self.edges = []
        self.sequence = -sys.maxsize  # before any other node
        self.module = parameter.storage.allocation.module if parameter.storage.allocation else ""
        self.repeat = parameter.repeat
        self.hooks = None
        self.saved = []
        self.outputs = 1
        self.buffer = None
        self.pending = 0

    def run(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        """Take the gradient over, copy it where others hold it or its layout differs, or add it in place."""
        parameter = self.parameter
        if gradients[0] is None:
            return []
        if parameter.grad is None:
            if sys.getrefcount(gradients[0]) <= _IN_LIST_ONLY and gradients[0].strides is None:
                parameter.grad = gradients[0].alias()
            else:
                parameter.grad = row_major_copy(gradients[0])
        if parameter.hook is not None:
            parameter.hook(parameter)
        return []


def gradient_edge(tensor: Tensor) -> Edge:
    """Where the gradient of `tensor` goes."""
    if tensor.node is not None:
        return Edge(tensor.node, tensor.output_index, tensor.shape, tensor.dtype)
    assert isinstance(tensor, Parameter)
    if isinstance(tensor, Leaf):
        collector = tensor.accumulator() or AccumulateGrad(tensor)
        tensor.accumulator = ref(collector)
        return Edge(collector, 0, tensor.shape, tensor.dtype)
    accumulators = tensor.trace.accumulators
    node = accumulators.get(tensor)
    if node is None:
        node = accumulators[tensor] = AccumulateGrad(tensor)
    return Edge(node, 0, tensor.shape, tensor.dtype)


def make_node(name: str, backward: Backward, *inputs: Tensor | None) -> Node | None:
    """A backward node over `inputs`, or None where none of them needs a gradient."""
    for tensor in inputs:
        if tensor is not None and tensor.requires_grad:
            trace = tensor.trace
            return Node(trace, name, backward, inputs) if trace.grad_enabled else None
    return None


def attach(output: Tensor, node: Node | None, index: int = 0) -> Tensor:
    """Make `output` the result of `node` and return it."""
    if node is not None:
        output.requires_grad = True
        output.node = node
        output.output_index = index
    return output


def validate(node: Node, gradients: list[Tensor | None]) -> None:
    """Reduce and cast gradients to what the next nodes expect (validate_outputs in engine.cpp)."""
    for index, edge in enumerate(node.edges):
        gradient = gradients[index]
        if edge is None or gradient is None:
            gradients[index] = None
            continue
        if gradient.shape != edge.shape:
            gradients[index] = gradient = sum_to(gradient, edge.shape)
        if gradient.dtype != edge.dtype:
            strides = gradient.strides
            if strides is not None and not layout.is_dense(gradient.shape, strides):
                strides = result_layout(gradient.shape, (gradient,))
            gradients[index] = empty(gradient.trace, gradient.shape, edge.dtype, "aten::to", strides)
        del gradient


def sum_to(gradient: Tensor, shape: Shape) -> Tensor:
    """The gradient of a broadcast operand: summed over the expanded dimensions (aten/src/ATen/ExpandUtils.h)."""
    total = empty(gradient.trace, shape, gradient.dtype, "aten::sum")
    if gradient.trace.backend.cuda:
        offset = len(gradient.shape) - len(shape)
        axes = [axis for axis, length in enumerate(gradient.shape) if axis < offset or shape[axis - offset] != length]
        take_buffers(gradient.trace, gradient.shape, gradient.full_strides(), axes, gradient.dtype, gradient.dtype)
    elif gradient.dtype == "fp32":
        _take_sums_of_threads(gradient, shape)
    elif layout.reduced_runs(gradient.shape, gradient.full_strides(), shape) > 1:
        # Half precision over dimensions that do not lie together is summed in fp32 copies
        # (aten/src/ATen/native/ReduceOps.cpp, should_use_acc_buffer).
        wide = empty(gradient.trace, shape, "fp32", "aten::to")
        empty(gradient.trace, gradient.shape, "fp32", "aten::to")
        del wide
    if len(gradient.shape) == len(shape):
        return total
    view = total.alias()  # leading dimensions are kept by the sum and viewed away
    view.base = total
    return view


def _take_sums_of_threads(gradient: Tensor, shape: Shape) -> None:
    """Many elements summed up to a single one: each thread has a sum of its own
    (aten/src/ATen/native/TensorIteratorReduce.cpp, two_pass_reduction)."""
    threads = gradient.trace.backend.threads
    if threads > 1 and all(length == 1 for length in shape) and product(gradient.shape) >= _GRAIN:
        gradient.trace.free(gradient.trace.allocate((threads,), gradient.dtype, "sum of each thread"))


_GRAIN = 32768
"""aten/src/ATen/TensorIterator.h, GRAIN_SIZE."""


def backward(loss: Tensor) -> None:
    """`loss.backward()`: run the graph newest node first. Gradients land in `Parameter.grad`."""
    trace = loss.trace
    root = loss.node
    assert root is not None
    root_gradient = empty(trace, loss.shape, loss.dtype, "aten::ones_like")  # the caller holds it throughout
    count_dependencies(root)
    trace.grad_enabled = False
    module, repeat = trace.module, trace.repeat
    ready: list[tuple[int, int, Node]] = []
    root.buffer = [None] * root.outputs
    root.buffer[loss.output_index] = root_gradient
    ties = 0
    heappush(ready, (root.sequence, ties, root))
    while ready:
        node = heappop(ready)[2]
        trace.module = node.module
        trace.enter_repeat(node.repeat)
        outputs = call(node)
        for index, edge in enumerate(node.edges):
            if edge is None:
                continue
            target = edge.node
            gradient, outputs[index] = outputs[index], None
            if gradient is not None:
                if target.buffer is None:
                    target.buffer = [None] * target.outputs
                accumulate(target.buffer, edge.index, gradient)
                del gradient
            target.pending -= 1
            if target.pending == 0:
                ties += 1
                heappush(ready, (target.sequence, ties, target))
    trace.module = module
    trace.enter_repeat(repeat)
    trace.grad_enabled = True


def call(node: Node) -> list[Tensor | None]:
    """Run one node, drop its incoming gradients, then its saved tensors."""
    gradients, node.buffer = node.buffer, None
    outputs = node.run(gradients if gradients is not None else [None] * node.outputs)
    del gradients
    node.saved.reverse()  # a list lets go of its last entry first, and a node of PyTorch's of what it saved first
    node.saved.clear()
    node.hooks = None
    return outputs


def count_dependencies(root: Node) -> None:
    """How many gradients each reachable node waits for."""
    seen = {root}
    stack = [root]
    while stack:
        for edge in stack.pop().edges:
            if edge is not None:
                target = edge.node
                if target not in seen:
                    seen.add(target)
                    target.pending = 0
                    stack.append(target)
                target.pending += 1


def accumulate(buffer: list[Tensor | None], index: int, gradient: Tensor) -> None:
    """Add a gradient to a node's input (torch/csrc/autograd/input_buffer.cpp)."""
    old = buffer[index]
    if old is None:
        buffer[index] = gradient
        return
    if (
        sys.getrefcount(old) <= _IN_BUFFER_ONLY
        and sys.getrefcount(old.storage) <= _ONE_TENSOR
        and (old.strides is None or layout.is_dense(old.shape, old.strides))
    ):
        return  # old.add_(gradient)
    buffer[index] = empty(old.trace, old.shape, old.dtype, "aten::add", result_layout(old.shape, (old, gradient)))


def _calibrate() -> tuple[int, int, int]:
    """What sys.getrefcount says on this interpreter when nobody else holds an object, in the three places above."""

    class Probe:
        __slots__ = ("storage",)
        storage: object

    def in_buffer(buffer: list[Any], index: int) -> tuple[int, int]:
        old = buffer[index]
        return sys.getrefcount(old), sys.getrefcount(old.storage)

    probe = Probe()
    probe.storage = Probe()
    buffer = [probe]
    del probe
    only_in_buffer, one_tensor = in_buffer(buffer, 0)
    return only_in_buffer, one_tensor, sys.getrefcount(buffer[0])


_IN_BUFFER_ONLY, _ONE_TENSOR, _IN_LIST_ONLY = _calibrate()
