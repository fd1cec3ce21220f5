"""Sending rows to where an index says and back: scatter, look-up and sum by index. On the CPU.

Kernels that move single elements of half precision work on fp32 copies of what they write to
(aten/src/ATen/native/cpu/ScatterGatherKernel.cpp, create_acc_buffer).
"""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.tensor import Tensor, empty

_WIDE_ROW = 16
"""Columns from which on rows are added whole, sorted by where they go (TensorAdvancedIndexing.cpp,
can_use_expanded_index_path)."""


def scatter(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """A copy of x with `values` at `places` along the last dimension, for an x outside the graph. Saves the places."""
    node = make_node("ScatterBackward0", _scatter_backward, values)
    if node is not None:
        node.save(places)
    output = empty(x.trace, x.shape, x.dtype, "aten::scatter")
    _accumulate_wide(output)
    return attach(output, node)


def _scatter_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    output = empty(gradient.trace, saved[0].shape, gradient.dtype, "aten::gather")
    _accumulate_wide(output)
    return (output,)


def _accumulate_wide(output: Tensor) -> None:
    if output.dtype != "fp32":
        empty(output.trace, output.shape, "fp32", "aten::to")


def index_select(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of x [n, width] by their numbers [m]: [m, width]. Saves the numbers; the gradient is a zero tensor that the
    rows are added to."""
    node = make_node("IndexSelectBackward0", _index_select_backward, x)
    if node is not None:
        node.context = x.shape
        node.save(rows)
    return attach(empty(x.trace, (rows.shape[0], x.shape[1]), x.dtype, "aten::index_select"), node)


def _index_select_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    output = empty(gradient.trace, node.context, gradient.dtype, "aten::zeros")
    _add_rows(output)
    return (output,)


def index_add(x: Tensor, rows: Tensor, source: Tensor) -> Tensor:
    """x.index_add_(0, rows, source): the same memory, for an x outside the graph. Saves the numbers of the rows and the
    source (tools/autograd/derivatives.yaml)."""
    node = make_node("IndexAddBackward0", _index_add_backward, source)
    if node is not None:
        node.save(rows)
        node.save(source)
    _add_rows(x)
    return attach(x, node)


def _index_add_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, saved[1].shape, gradient.dtype, "aten::index_select"),)


def _add_rows(output: Tensor) -> None:
    """Half precision is added in fp32: wide rows in one row for each thread, narrow ones in a copy of all."""
    if output.dtype != "fp32":
        width = output.shape[1]
        rows = output.trace.backend.threads if width >= _WIDE_ROW else output.shape[0]
        empty(output.trace, (rows, width), "fp32", "aten::to")
