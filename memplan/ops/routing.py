"""What a router of tokens needs: the best experts, sorting, counting, look-up by index.

Which tokens go where depends on data; no size here does.
"""

from __future__ import annotations

from memplan.errors import NotModelledError
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import arange, number, pointwise
from memplan.ops.layout import Shape
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace


def only_on_cpu(trace: Trace) -> None:
    """Sorting and counting on CUDA take scratch memory that has no rule here."""
    if trace.backend.cuda:
        raise NotModelledError("a mixture of experts on CUDA is not modelled")


def topk(x: Tensor, number_of: int) -> tuple[Tensor, Tensor]:
    """The largest `number_of` along the last dimension, and their places (aten/src/ATen/native/Sorting.cpp). Saves the
    places."""
    node = make_node("TopkBackward0", selection_backward, x)
    shape = (*x.shape[:-1], number_of)
    values = empty(x.trace, shape, x.dtype, "aten::topk")
    indices = empty(x.trace, shape, "int64", "aten::topk")
    if node is not None:
        node.context = x.shape
        node.save(indices)
    return attach(values, node), indices


def selection_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """A zero tensor of the input's size with the selected places filled (value_selecting_reduction_backward in
    torch/csrc/autograd/FunctionsManual.cpp). Half precision is scattered into a buffer of fp32 first
    (aten/src/ATen/native/cpu/ScatterGatherKernel.cpp, create_acc_buffer)."""
    output = empty(gradient.trace, node.context, gradient.dtype, "aten::zeros")
    if gradient.dtype in ("bf16", "fp16"):
        empty(gradient.trace, node.context, "fp32", "aten::scatter_")
    return (output,)


def divide_in_place(left: Tensor, right: Tensor) -> Tensor:
    """left.div_(right), the same memory: `left` is copied first, since the gradient of `right` needs it as it was
    (tools/autograd/gen_variable_type.py, original_self)."""
    node = make_node("DivBackward0", _divide_backward, left, right)
    if node is not None:
        original = empty(left.trace, left.shape, left.dtype, "aten::clone")
        node.save(right)
        if node.wants(1):
            node.save(original)
        del original
    return attach(left.alias(), node)


def _divide_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """div_tensor_other_grad and div_tensor_self_backward (torch/csrc/autograd/FunctionsManual.cpp)."""
    to_right: Tensor | None = None
    if node.wants(1):
        quotient = pointwise("aten::div", (saved[1], saved[0]))
        again = pointwise("aten::div", (quotient, saved[0]))
        negative = pointwise("aten::neg", (gradient,))
        to_right = pointwise("aten::mul", (negative, again))
        del negative, again, quotient
    to_left = pointwise("aten::div", (gradient, saved[0])) if node.wants(0) else None
    return (to_left, to_right)


def sort(x: Tensor) -> tuple[Tensor, Tensor]:
    """A vector in order, and where each element came from (aten/src/ATen/native/Sorting.cpp, sort_stable)."""
    only_on_cpu(x.trace)
    values = empty(x.trace, x.shape, x.dtype, "aten::sort")
    indices = empty(x.trace, x.shape, "int64", "aten::sort")
    arange(x, x.shape[0])  # what the places start as
    return values, indices


def floor_divide(x: Tensor, divisor: int) -> Tensor:
    """x // divisor, for whole numbers."""
    return pointwise("aten::floor_divide", (x, number(x, divisor)))


def index(x: Tensor, indices: Tensor) -> Tensor:
    """x[indices] along the first dimension (aten/src/ATen/native/TensorAdvancedIndexing.cpp). Saves the indices; the
    gradient is a zero tensor of x's size that the rows are added to."""
    node = make_node("IndexBackward0", _index_backward, x)
    if node is not None:
        node.context = x.shape
        node.save(indices)
    return attach(empty(x.trace, (*indices.shape, *x.shape[1:]), x.dtype, "aten::index"), node)


def _index_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, node.context, gradient.dtype, "aten::new_zeros"),)


def histogram(x: Tensor, bins: int) -> Tensor:
    """torch.histc from 0 to bins - 1: how many elements of a vector fall into each bin
    (aten/src/ATen/native/Histogram.cpp, cpu/HistogramKernel.cpp). Beside the counts there are the edges of the bins,
    and counts for each thread."""
    trace = x.trace
    edges = empty(trace, (bins + 1,), x.dtype, "aten::histc")
    counts = empty(trace, (bins,), x.dtype, "aten::histc")
    if bins == 1:  # asked for from 0 to 0, which means: from the least to the largest element
        least, largest = empty(trace, (), x.dtype, "aten::aminmax"), empty(trace, (), x.dtype, "aten::aminmax")
        del least, largest
    empty(trace, (trace.backend.threads, bins), x.dtype, "aten::zeros")
    del edges
    return counts


def running_sum(x: Tensor, dtype: str) -> Tensor:
    """x.cumsum(0, dtype) of a vector outside the graph: the input is cast (aten/src/ATen/native/ReduceOps.cpp)."""
    output = empty(x.trace, x.shape, dtype, "aten::cumsum")
    if x.dtype != dtype:
        empty(x.trace, x.shape, dtype, "aten::to")
    return output


def inverse(permutation: Tensor) -> Tensor:
    """The permutation that undoes this one: a fresh vector, filled at the places of the other."""
    shape: Shape = permutation.shape
    undone = empty(permutation.trace, shape, permutation.dtype, "aten::empty_like")
    arange(permutation, shape[0])
    return undone
