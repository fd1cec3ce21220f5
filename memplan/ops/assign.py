"""A part of a tensor written over: base[..., a:b].copy_(source) (torch/csrc/autograd/functions/tensor.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
from memplan.ops.tensor import Tensor, empty


def assign(base: Tensor, length: int, source: Tensor) -> Tensor:
    """`length` elements along the last dimension of `base`, which lies row by row, become `source`: the same memory.
    Saves nothing."""
    node = make_node("CopySlices", _copy_slices_backward, base, source)
    if node is not None:
        node.context = (base.shape, (*base.shape[:-1], length), source.dtype)
    return attach(base, node)


def _copy_slices_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """CopySlices and, within it, CopyBackwards: the gradient is copied whole; its part, copied once more, goes to the
    source, and zeros take its place for what was there before."""
    shape, part, dtype = node.context
    result = empty(gradient.trace, shape, gradient.dtype, "aten::new_empty_strided")
    of_part = empty(gradient.trace, part, gradient.dtype, "aten::clone")
    zeros = empty(gradient.trace, part, gradient.dtype, "aten::zeros_like") if node.wants(0) else None
    to_source = to(of_part, dtype) if node.wants(1) else None
    del of_part, zeros
    return (result if node.wants(0) else None, to_source)
