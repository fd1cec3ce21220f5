"""Table look-up (aten/src/ATen/native/Embedding.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import contiguous


def embedding(indices: Tensor, weight: Tensor) -> Tensor:
    """weight [rows, hidden] at indices [...] -> [..., hidden]. Saves the indices; the gradient is a whole table."""
    node = make_node("EmbeddingBackward0", _embedding_backward, weight)
    if node is not None:
        node.context = weight.shape
        node.save(indices)
    return attach(empty(weight.trace, (*indices.shape, weight.shape[1]), weight.dtype, "aten::embedding"), node)


def _embedding_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    table = empty(gradient.trace, node.context, gradient.dtype, "aten::embedding_dense_backward")
    contiguous(gradient)  # the kernel reads rows as they lie, and copies them where they do not lie in rows
    return (table,)
