"""torch.addmm with a weight that is not transposed (aten/src/ATen/native/LinearAlgebra.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.linear import cached_cast
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import view_of
from memplan.ops.workspaces import fuses_bias, take_workspaces


def addmm(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """bias [out] + x [rows, in] @ weight [in, out]. Saves x (for the weight's gradient) and the weight (for x's)."""
    trace, dtype = x.trace, x.trace.autocast_dtype
    if dtype is not None:  # the arguments are cast last to first
        weight = cached_cast(weight, dtype)
        x = cached_cast(x, dtype)
        bias = cached_cast(bias, dtype)
    node = make_node("AddmmBackward0", _addmm_backward, bias, x, weight)
    if node is not None:
        if node.wants(2):
            node.save(x)
        if node.wants(1):
            node.save(weight)
    output = empty(trace, (x.shape[0], weight.shape[1]), x.dtype, "aten::addmm")
    if trace.backend.cuda:
        take_workspaces(trace, fuses_bias(trace.backend, x.shape[0], (weight.shape[1], weight.shape[0])))
    return attach(output, node)


def _addmm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """The bias gets the gradient itself, which is then summed to its shape (mm_mat1_backward, mm_mat2_backward in
    torch/csrc/autograd/FunctionsManual.cpp)."""
    trace = gradient.trace
    to_x: Tensor | None = None
    to_weight: Tensor | None = None
    if node.wants(1):
        weight = saved[-1]
        fresh = empty(trace, (gradient.shape[0], weight.shape[0]), gradient.dtype, "aten::mm")
        take_workspaces(trace)
        # An input of one element counts as column-major: its gradient comes transposed, as a view.
        to_x = view_of(fresh, fresh.shape, None) if fresh.shape == (1, 1) else fresh
        del fresh
    if node.wants(2):
        x = saved[0]
        to_weight = empty(trace, (x.shape[1], gradient.shape[1]), gradient.dtype, "aten::mm")
        take_workspaces(trace)
    return (gradient, to_x, to_weight)
